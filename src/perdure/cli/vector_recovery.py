"""perdure vectors recover, risk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from perdure.cli.console import note, say, say_json, table
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.cli.vectors import Functions, Settings, group, sides_of, vector_settings
from perdure.errors import SettingError

if TYPE_CHECKING:
    from perdure.measuring.skill_risk import RiskMeasures
    from perdure.workspace.records import Version
    from perdure.workspace.recovering import Way

_WAYS = ("add", "subtract")


def add_to(_app: typer.Typer) -> None:
    """Add the commands of this file, to `perdure vectors`."""
    group.command()(recover)
    group.command()(risk)


def recover(
    version: Annotated[str, typer.Argument(help="The version that lost something.")],
    function: Annotated[
        str, typer.Argument(help="A skill to bring back, or, with --way subtract, the intruding task.")
    ],
    way: Annotated[
        str, typer.Option("--way", help="add: the vector of --from; subtract: the vector of this version.")
    ] = "add",
    source: Annotated[str, typer.Option("--from", help="A version that could do it.")] = "v0",
    others: Functions = None,
    settings: Settings = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure the candidate afterwards.")] = True,
    actor: Actor = "",
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Bring a skill back without training: a candidate whose weights carry a function vector.

    The vector becomes the bias of one block. Where and how strongly is chosen on validation questions about this skill
    and all others; where nothing helps, nothing is made. The candidate is measured and approved like any other.

    Examples:

        perdure vectors recover v2 present_past

        perdure vectors recover v2 returns.jsonl --way subtract
    """
    from perdure.measuring.skill_comparison import functions_named

    if way not in _WAYS:
        raise SettingError(f"--way is {way!r}; allowed: {', '.join(_WAYS)}")
    config = vector_settings(settings)
    [asked] = functions_named([function])
    with opened(workspace, quiet=json, device=device) as shop:
        made = shop.recover(
            version,
            asked,
            way=cast("Way", way),
            source=source,
            others=functions_named(others or []),
            config=config,
            actor=actor,
        )
        report = shop.measure(made, actor=actor) if measure else None
    if json:
        say_json({"version": made.name, "id": made.id, "recipe": made.manifest.recipe})
        return
    _say_made(made, version)
    if report is not None:
        say(f"Measured: {report.verdict}. Next: perdure report {made.name}", style="dim")


def _say_made(made: "Version", version: str) -> None:
    recipe = made.manifest.recipe
    verb = "added" if recipe["way"] == "add" else "taken away"
    say(
        f"{made.name}: {version} with the vector of {recipe['function']} {verb} at layer {recipe['layer']}, "
        f"strength {recipe['strength']:g}."
    )
    plain = next(one for one in recipe["tried"] if one["layer"] is None)
    best = max(recipe["tried"], key=lambda one: (one["right"], one["own"]))
    note(
        f"validation questions right: {plain['right']} of {recipe['questions']} before, {best['right']} with it "
        "(all skills together)"
    )


def risk(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_VERSION", help="The model before tuning.")],
    task: Annotated[Path, typer.Argument(help="The new task: a .json, .jsonl or .csv of inputs and outputs.")],
    functions: Functions = None,
    settings: Settings = None,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Say which skills a new task puts at risk, before it is tuned in. Nothing is changed.

    The less a skill's function vector is like the new task's, the more it tends to be forgotten.

    Examples:

        perdure vectors risk v0 returns.jsonl

        perdure vectors risk v0 returns.jsonl --function present_past --function capitalize --json
    """
    from perdure.measuring.skill_comparison import functions_named
    from perdure.measuring.skill_risk import rank_risk
    from perdure.requests.functions import read_function

    config, asked, new = vector_settings(settings), functions_named(functions or []), read_function(task)
    with sides_of([model], config, workspace=workspace, device=device, quiet=json) as (sides, bench):
        found = rank_risk(sides[0], new, asked, bench)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    _say_risk(found)


def _say_risk(found: "RiskMeasures") -> None:
    rows = [[str(place), skill.name, f"{skill.similarity:.3f}"] for place, skill in enumerate(found.skills, 1)]
    table(f"Skills that {found.task} puts at risk, the most endangered first", ["", "skill", "likeness (cosine)"], rows)
    for name, reason in found.left_out.items():
        say(f"Not ranked: {name}; {reason}.", style="dim")
