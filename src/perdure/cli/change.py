"""perdure edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import note, say, say_json, table
from perdure.cli.look import say_report
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.errors import SettingError

if TYPE_CHECKING:
    from perdure.requests import FactFile
    from perdure.workspace import EditPlan, Workspace


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Change")(edit)


def edit(
    facts: Annotated[Path, typer.Argument(help="Facts as .jsonl, .json or .csv.", exists=True, dir_okay=False)],
    editor: Annotated[str, typer.Option("--editor", "-e", help="See `perdure methods`.")] = "memit",
    restraint: Annotated[str, typer.Option(help="Restraint of the accumulated update, or none.")] = "prune",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting of the editor, such as layers=[5,6,7]."),
    ] = None,
    restraint_settings: Annotated[
        list[str] | None,
        typer.Option("--set-restraint", metavar="NAME=VALUE", help="A setting of the restraint, such as alpha=2."),
    ] = None,
    on: Annotated[str, typer.Option("--on", help="The version to edit.", show_default="the newest not rejected")] = "",
    batch_size: Annotated[int, typer.Option(help="Facts solved together; progress is kept after each batch.")] = 100,
    text: Annotated[
        Path | None, typer.Option(help="Text file for second moments, a passage per line.", exists=True, dir_okay=False)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out instead of refusing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and plan; compute and store nothing.")] = False,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure the candidate afterwards.")] = True,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Teach facts: a new candidate version, measured against its parent. Nothing serves it yet.

    Interrupted, the same command goes on after the last finished batch.

    Examples:

        perdure edit facts.jsonl

        perdure edit facts.csv --editor rome --set layer=7 --restraint none

        perdure edit facts.jsonl --on v0 --dry-run
    """
    from perdure.workspace import Settings

    chosen = Settings(
        editor=editor,
        config=parse_settings(settings or []),
        restraint=restraint,
        restraint_config=parse_settings(restraint_settings or []),
        batch_size=batch_size,
        texts=_read_text(text) if text else None,
    )
    with opened(workspace, quiet=json, device=device) as shop:
        plan, asked = shop.plan(facts, chosen, on=on, skip_bad=skip_bad)
        _tell_file(asked, json)
        if dry_run:
            _tell_plan(shop, plan, json)
            return
        version = shop.carry_out(plan, actor=actor, texts=chosen.texts)
        report = shop.measure(version, actor=actor) if measure else None
    if json:
        say_json({"version": version.name, "id": version.id, "report": report and report.model_dump(mode="json")})
        return
    say(f"{version.name}: {len(plan.facts)} facts, {editor} + {restraint}, on {shop.version(plan.parent).name}")
    if report is not None:
        say_report(report)
        say(f"Next: perdure report {version.name}, perdure approve {version.name} --as NAME", style="dim")


def _read_text(path: Path) -> tuple[str, ...]:
    """The lines of a text file.

    Raises:
        SettingError: It is not UTF-8, or empty.
    """
    try:
        lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not UTF-8 text: {error}") from error
    if not lines:
        raise SettingError(f"{path} holds no text")
    return lines


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE; a value is JSON where it is valid JSON, text otherwise; a.b sets b inside a.

    Raises:
        SettingError: A pair without "=".
    """
    import json

    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise SettingError(f"a setting is NAME=VALUE; given {pair!r}")
        *outer, last = name.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise SettingError(f"{part} is set to a value already; {pair!r} would set something inside it")
        try:
            place[last] = json.loads(value)
        except ValueError:
            place[last] = value
    return found


def _tell_file(asked: "FactFile", quiet: bool) -> None:
    if quiet:
        return
    for merge in asked.merged:
        note(f"merged: {merge}", style="dim")
    for problem in asked.problems:
        note(f"left out: {problem}", style="yellow")


def _tell_plan(shop: "Workspace", plan: "EditPlan", json: bool) -> None:
    recipe = plan.recipe()
    if json:
        say_json({"parent": plan.parent, "recipe": recipe, "facts": [fact.model_dump() for fact in plan.facts]})
        return
    say(f"Would edit {shop.version(plan.parent).name} with {len(plan.facts)} facts; nothing was computed.")
    rows = [[fact.prompt, fact.target_new, fact.target_true or ""] for fact in plan.facts[:20]]
    table("Facts" + (" (the first 20)" if len(plan.facts) > 20 else ""), ["prompt", "new answer", "old answer"], rows)
    for name in ("editor", "config", "restraint", "restraint_config", "batch_size"):
        say(f"{name}: {recipe[name]}", style="dim")
