"""The program `perdure`: its commands, its exit codes, its start.

Exit codes: 0 done; 1 failed; 2 wrong use or setting; 3 bad requests; 4 model not usable; 5 workspace not
usable; 6 refused by a rule; 7 damaged data; 130 interrupted.
"""

import inspect
import os
import sys

import typer

import perdure
from perdure.cli import (
    ask,
    canary,
    change,
    concepts,
    create,
    decide,
    demo,
    integrations,
    kpi,
    lineage,
    look,
    members,
    methods,
    models,
    monitor,
    notify,
    plan,
    policy,
    pool,
    records,
    serve,
    trace,
    tune,
    vector_files,
    vector_recovery,
    vectors,
)
from perdure.cli.console import fail, note, say
from perdure.errors import PerdureError

app = typer.Typer(
    name="perdure",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 bad requests, 4 model, 5 workspace, 6 refused, "
    "7 damaged data, 130 interrupted.",
)
vector_commands = (vectors, vector_recovery, vector_files)
rules = (policy, members, canary)
changes = (create, change, tune, plan, pool)
looks = (look, ask, lineage, decide, *rules, trace, *vector_commands, concepts, monitor, kpi, notify)
for group in (*changes, *looks, serve, records, integrations, methods, models, demo):
    group.add_to(app)


def _reflow(group: typer.Typer) -> None:
    """Make each paragraph of help one long line, which breaks where the terminal ends and not where the source does."""
    for command in group.registered_commands:
        parts = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(part if part.startswith(" ") else part.replace("\n", " ") for part in parts)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _reflow(inner.typer_instance)


_reflow(app)


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"perdure {perdure.__version__}")
        raise typer.Exit


@app.callback()
def settings(
    threads: int = typer.Option(
        0, "--threads", envvar="PERDURE_THREADS", min=0, help="CPU threads; 0: one on two cores or fewer, else all."
    ),
    version: bool = typer.Option(
        False, "--version", callback=_tell_version, is_eager=True, help="Say which perdure this is, and end."
    ),
) -> None:
    """Update a foundation model without making it forget.

    Every change is measured, restrained, approved and undoable.
    """
    # Threads that spin while they wait make a forward pass several times slower on a small shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' own bars; ours are rich
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif (os.cpu_count() or 1) <= 2:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    """Run the program and turn errors into exit codes."""
    try:
        app()
    except PerdureError as error:
        sys.exit(fail(error))
    except SystemExit as stop:
        if stop.code == 130:  # typer turns Ctrl-C into this
            note("interrupted: versions, aliases and ledger are as they were; run the same command to go on")
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (OSError, UnicodeError) as error:
        sys.exit(fail(PerdureError(str(error))))


if __name__ == "__main__":
    main()
