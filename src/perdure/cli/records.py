"""perdure log, verify, export, apply, clean."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import progress, say, say_json, table
from perdure.cli.options import AsJson, Folder, opened
from perdure.errors import IntegrityError


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Look")(log)
    app.command(rich_help_panel="Keep")(verify)
    app.command(rich_help_panel="Keep")(export)
    app.command(rich_help_panel="Keep")(apply)
    app.command(rich_help_panel="Keep")(clean)


def log(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the latest entries.")] = 50,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show the ledger: who did what when. It can only grow, and each entry seals the ones before."""
    with opened(workspace, quiet=True) as shop:
        entries = shop.archive.log(limit)
    if json:
        say_json([vars(entry) for entry in entries])
        return
    rows = [
        [str(entry.sequence), entry.time[:19].replace("T", " "), entry.actor, entry.action, _brief(entry.details)]
        for entry in entries
    ]
    table("Ledger (UTC)", ["no.", "time", "who", "what", "details"], rows)


def _brief(details: object) -> str:
    if not isinstance(details, dict):
        return ""
    return ", ".join(f"{name}: {_short(value)}" for name, value in details.items())


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def verify(
    quick: Annotated[bool, typer.Option("--quick", help="Check the ledger and that everything is there.")] = False,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Check everything: the ledger's chain, every object's hash, every version rebuilt. Exit code 7 on damage."""
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.verify(deep=not quick)
    if json:
        say_json({**vars(found), "ok": found.ok})
    else:
        for problem in found.problems:
            say(problem, style="red")
        counts = ", ".join(f"{value:,} {name}" for name, value in vars(found).items() if isinstance(value, int))
        say(f"{'sound' if found.ok else 'DAMAGED'}: {counts}")
    if not found.ok:
        raise IntegrityError(f"{len(found.problems)} problems; restore the workspace from a backup")


def export(
    version: Annotated[str, typer.Argument(help="A version.")],
    target: Annotated[Path, typer.Argument(help="A new folder; with --delta a new file.")],
    delta: Annotated[bool, typer.Option("--delta", help="Only what the version changed, as one file.")] = False,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Write a version as a model folder: AutoModelForCausalLM.from_pretrained loads it.

    With --delta, write only what turns the base into the version; perdure apply puts it on a copy of the base.

    Examples:

        perdure export v1 out/

        perdure export v1 v1.safetensors --delta
    """
    with opened(workspace, quiet=True) as shop:
        name = shop.version(version).name
        if delta:
            shop.export_delta(name, target)
        else:
            shop.export(name, target)
    size = target.stat().st_size if delta else None
    if json:
        say_json({"version": name, "delta" if delta else "folder": str(target), "bytes": size})
    elif delta:
        say(f"what {name} changed is in {target}, {target.stat().st_size / 1e6:,.1f} MB")
    else:
        say(f"{name} is in {target}")


def apply(
    delta: Annotated[Path, typer.Argument(help="A file written by perdure export VERSION FILE --delta.")],
    to: Annotated[str, typer.Option("--to", help="The base: a folder, a catalogue name, a .gguf file or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model folder.")],
    json: AsJson = False,
) -> None:
    """Put an exported delta on a copy of the base, wherever it lies; no workspace is needed.

    Works through the checkpoint a few rows at a time, so it may be far larger than memory. Every tensor of
    the base is checked by its hash, and every changed one after; the new folder is there whole or not at all.

    Example: perdure apply v1.safetensors --to ./base-model --out ./edited-model
    """
    from perdure.deltas.exported import ExportedDelta
    from perdure.deltas.streaming import apply_to_folder
    from perdure.models.loading import resolve

    exported = ExportedDelta.open(delta)
    with progress(quiet=json) as advance:
        done = apply_to_folder(resolve(to), exported, out, progress=advance)
    name = exported.contents.notes.get("name", "")
    if json:
        say_json({"version": exported.contents.notes.get("version"), "folder": str(out), **vars(done)})
    else:
        say(f"{out} is {name}: {done.changed} of {done.tensors} tensors changed, all checked against their hashes")


def clean(workspace: Folder = Path(), json: AsJson = False) -> None:
    """Move objects that nothing refers to into quarantine."""
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.collect_garbage()
    if json:
        say_json(vars(found))
    else:
        say(", ".join(f"{name}: {value}" for name, value in vars(found).items()))
