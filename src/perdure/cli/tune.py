"""perdure tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.change import parse_settings
from perdure.cli.console import counted, note, say, say_json, table
from perdure.cli.look import say_report
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.measuring import Report
    from perdure.requests.tasks import Task
    from perdure.workspace import Version, Workspace
    from perdure.workspace.pooling import PoolPlan
    from perdure.workspace.tuning import TuningPlan

Tasks = Annotated[
    list[str],
    typer.Argument(
        help="Tasks to learn, in this order: .jsonl, .json or .csv files, folders, or hub data sets; for an encoder, "
        "labelled sets: .npz files, folders of images, texts with labels."
    ),
]
Regularize = Annotated[
    list[str] | None,
    typer.Option(
        "--regularize",
        "-r",
        metavar="NAME[=WEIGHT]",
        help="What holds the model; repeat for several. See `perdure methods`.",
        show_default="kfac, and distillation on anchors; in a pool none; of an encoder feature_distance",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as epochs=2 or averaging.form=ratio."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Change")(tune)


def tune(
    tasks: Tasks,
    regularize: Regularize = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Nothing holds the model and nothing is averaged: plain fine-tuning.")
    ] = False,
    pool: Annotated[
        bool, typer.Option("--pool", help="Leave the weights; teach an adapter that tasks of like instructions share.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Train all projection matrices of the blocks, not adapters.")
    ] = False,
    settings: Settings = None,
    on: Annotated[str, typer.Option("--on", help="The version to tune.", show_default="the newest not rejected")] = "",
    validation: Annotated[float, typer.Option(help="Share held out where a task brings no validation part.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share held out for the report where a task brings no test part.")] = 0.2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out instead of refusing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and plan; compute and store nothing.")] = False,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure each candidate afterwards.")] = True,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Teach tasks, one after another: a new candidate version for each, measured. Nothing serves them yet.

    What the model could do before is held by regularizers, and the weights are averaged with those of before.

    An encoder learns labelled sets: a head is trained with it, from a linear probe on, and the features are held.

    With --pool the weights stay as they are: see `perdure pool`.

    Interrupted, the same command goes on from the last checkpoint.

    Under torchrun several processes train together; measure the versions afterwards (`perdure measure`).

    Examples:

        perdure tune returns.jsonl warranty.jsonl

        perdure tune returns.jsonl --regularize function_vector --regularize feature_distance=3

        perdure tune returns.jsonl --set epochs=2 --set rank=16 --set averaging.form=none

        perdure tune returns.jsonl --plain --full --set learning_rate=1e-5

        perdure tune returns.jsonl --pool --set pool.cap=4

        perdure tune products.npz --set epochs=5

        perdure tune returns.jsonl --dry-run
    """
    from perdure.requests.tasks import read_task
    from perdure.tuning import processes

    measure, quiet = measure and processes.count() == 1, json or not processes.is_first()
    chosen = settings_of(regularize, plain=plain, full=full, pool=pool, given=settings)
    with opened(workspace, quiet=quiet, device=device) as shop:
        if shop.is_encoder:
            _learn(shop, tasks, settings_of_encoder(regularize, plain=plain, full=full, pool=pool, given=settings), {
                "on": on, "test": test, "skip_bad": skip_bad, "dry_run": dry_run, "measure": measure,
                "actor": actor, "json": json,
            })  # fmt: skip
            return
        read = [read_task(path, validation=validation, test=test, skip_bad=skip_bad) for path in tasks]
        if dry_run:
            _tell_plan(shop, read, chosen, on, pool=pool, json=json)
            return
        _tell_notes(read, json=quiet)
        made = []
        versions = (shop.tune_in_pool if pool else shop.tune_each)(read, chosen, on=on, actor=actor)
        for version, task in zip(versions, read, strict=True):
            report = shop.measure(version, actor=actor) if measure else None
            made.append((version, task, report))
            if not quiet:
                _tell_version(shop, version, task)
                if report is not None:
                    say_report(report)
    if processes.is_first():
        tell_end([(version, report) for version, _, report in made], json=json)


def _learn(shop: "Workspace", sets: list[str], settings: dict[str, Any], options: dict[str, Any]) -> None:
    from perdure.cli.learning import learn

    learn(shop, sets, settings, **options)


def tell_end(made: "Sequence[tuple[Version, Report | None]]", *, json: bool) -> None:
    """All that was made, for machines; or what to do next."""
    if json:
        rows = [(version.name, version.id, report and report.model_dump(mode="json")) for version, report in made]
        say_json([dict(zip(("version", "id", "report"), row, strict=True)) for row in rows])
        return
    last, report = made[-1][0].name, made[-1][1]
    look = f"perdure measure {last}" if report is None else f"perdure report {last}"
    say(f"Next: {look}, perdure approve {last} --as NAME", style="dim")


def settings_of_encoder(
    regularize: list[str] | None, *, plain: bool, full: bool, pool: bool, given: list[str] | None
) -> dict[str, Any]:
    """The settings that the options say for an encoder, on top of the usual ones.

    Raises:
        SettingError: Options that contradict each other, or a pool.
    """
    from perdure.tuning.defaults import usual_encoder_settings

    if pool:
        raise SettingError("an encoder has no requests to route: leave out --pool")
    return _on_top({} if plain else usual_encoder_settings(), regularize, plain=plain, full=full, given=given)


def settings_of(
    regularize: list[str] | None, *, plain: bool, full: bool, pool: bool = False, given: list[str] | None
) -> dict[str, Any]:
    """The settings that the options say, on top of the usual ones.

    Raises:
        SettingError: Options that contradict each other, or a weight that is no number.
    """
    from perdure.tuning.defaults import usual_pool_settings, usual_settings

    usual = {} if plain else usual_pool_settings() if pool else usual_settings()
    chosen = _on_top(usual, regularize, plain=plain, full=full, given=given)
    if "pool" in chosen and not pool:
        raise SettingError("pool.… are settings of a pool; add --pool, or leave them out")
    return chosen


def _on_top(
    usual: dict[str, Any], regularize: list[str] | None, *, plain: bool, full: bool, given: list[str] | None
) -> dict[str, Any]:
    if plain and regularize:
        raise SettingError("--plain means that nothing holds the model; leave out --regularize")
    chosen = dict(usual)
    if regularize:
        chosen["regularizers"] = [_regularizer(text) for text in regularize]
    if full:
        chosen["method"] = "full"
    for name, value in parse_settings(given or []).items():
        below = chosen.get(name)
        chosen[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return chosen


def _regularizer(text: str) -> dict[str, Any]:
    name, sign, weight = text.partition("=")
    if not sign:
        return {"kind": name}
    try:
        return {"kind": name, "weight": float(weight)}
    except ValueError as error:
        raise SettingError(f"a regularizer is NAME or NAME=WEIGHT; given {text!r}") from error


def _tell_notes(tasks: "list[Task]", *, json: bool) -> None:
    for task in () if json else tasks:
        for text in task.notes:
            note(f"{task.name}: {text}", style="dim")


def _tell_plan(
    shop: "Workspace", tasks: "list[Task]", settings: dict[str, Any], on: str, *, pool: bool, json: bool
) -> None:
    plans = _plans(shop, tasks, settings, on, pool=pool)
    if json:
        say_json([{"parent": plan.parent, "recipe": plan.recipe(), "notes": plan.task.notes} for plan in plans])
        return
    say(f"Would tune {shop.version(plans[0].parent).name} with {counted(len(tasks), 'task')}; nothing was computed.")
    rows = [
        [task.name, str(len(task.train)), str(len(task.validation)), str(len(task.test)), task.instruction[:60]]
        for task in tasks
    ]
    table("Tasks", ["task", "train", "validation", "test", "instruction"], rows)
    _tell_notes(tasks, json=False)
    for name, value in plans[0].config.model_dump(mode="json").items():
        say(f"{name}: {value}", style="dim")


def _plans(
    shop: "Workspace", tasks: "list[Task]", settings: dict[str, Any], on: str, *, pool: bool
) -> "Sequence[TuningPlan | PoolPlan]":
    """The plans; in a pool, each after it is said where its task would go."""
    if not pool:
        return [shop.plan_tuning(task, settings, on=on) for task in tasks]
    from perdure.workspace.pooling import plan_in_pool

    plans = plan_in_pool(shop, tasks, settings, on=on)
    for plan in plans:
        note(f"{plan.task.name} {plan.joined.reason}", style="dim")
    return plans


def _tell_version(shop: "Workspace", version: "Version", task: "Task") -> None:
    from perdure.workspace.tuning import unheld_tasks

    config = version.manifest.recipe["config"]
    held = ", ".join(each["kind"] for each in config["regularizers"]) or "nothing"
    say(
        f"{version.name}: learnt {task.name} from {len(task.train)} rows ({config['method']}), held by {held}, "
        f"averaging {config['averaging']['form']}"
    )
    if "group" in version.manifest.recipe:
        say(
            f"Its weights are those of before; group {version.manifest.recipe['group']} of the pool has what it learnt."
        )
    elif "kfac" in held and (unheld := unheld_tasks(shop, version)):
        say(
            f"{unheld} of the tasks before it left no information for kfac to hold: they were tuned without it. Their "
            "rows among the new ones would hold them.",
            style="yellow",
        )
