"""perdure edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import counted, note, say, say_json, table
from perdure.cli.look import say_report
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.cli.removing import Shown, check_alone, remove_facts
from perdure.errors import SettingError

if TYPE_CHECKING:
    from perdure.editing.presets import Preset
    from perdure.requests import FactFile
    from perdure.workspace import EditPlan, Version, Workspace


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Change")(edit)


def edit(
    context: typer.Context,
    facts: Annotated[
        Path | None, typer.Argument(help="Facts to teach, as .jsonl, .json or .csv.", exists=True, dir_okay=False)
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT", help="Take a fact out again: its id (or how it starts), prompt or subject."),
    ] = None,
    editor: Annotated[str, typer.Option("--editor", "-e", help="See `perdure methods`.")] = "memit",
    preset: Annotated[
        str, typer.Option(help="Published settings to start from, such as llama-3-8b; see `perdure methods`.")
    ] = "",
    layers: Annotated[
        str,
        typer.Option(
            metavar="traced|depth|4,5,6",
            help="Layers to change: where `perdure trace` finds most (it runs first where needed), by the model's "
            "depth, or these.",
            show_default="the editor's own",
        ),
    ] = "",
    restraint: Annotated[
        str,
        typer.Option(
            help="Restraint of the accumulated update, none, or auto: as strong as a measured curve says.",
            show_default="prune; auto from 100 facts on",
        ),
    ] = "",
    each_batch: Annotated[
        bool, typer.Option("--restrain-each-batch", help="Restrain after every batch, not only the last.")
    ] = False,
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
    rescore: Annotated[
        int, typer.Option(metavar="N", help="Ask all earlier facts again after every N, by age; 0 for never.")
    ] = 0,
    stop_at_limit: Annotated[
        bool,
        typer.Option("--stop-at-limit", help="End the edit where the policy's limits on weights are passed."),
    ] = False,
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
    """Teach facts, or take some out again: a new candidate version, measured. Nothing serves it yet.

    Interrupted, the same command goes on after the last finished batch.

    With --remove, later edits are done again without the fact; the other facts keep their answers.

    Examples:

        perdure edit facts.jsonl

        perdure edit facts.csv --editor rome --set layer=7 --restraint none

        perdure edit facts.jsonl --preset llama-3-8b --set values.steps=20

        perdure edit facts.jsonl --layers traced

        perdure edit thousands.jsonl --restraint auto --rescore 500 --stop-at-limit

        perdure edit facts.jsonl --on v0 --dry-run

        perdure edit --remove "The capital of Canada is" --remove 3f9a2c
    """
    from perdure.workspace import Settings
    from perdure.workspace.tracing import ensure_trace

    texts = read_text(text) if text else None
    if remove:
        check_alone(context)
        with opened(workspace, quiet=json, device=device) as shop:
            shown = Shown(dry_run=dry_run, measure=measure, json=json)
            remove_facts(shop, remove, on=on, texts=texts, actor=actor, shown=shown)
        return
    if facts is None:
        raise SettingError("give a file of facts to teach, or --remove FACT to take one out")
    chosen = Settings(
        editor=editor,
        config=parse_settings(settings or []),
        restraint=restraint or None,
        restraint_config=parse_settings(restraint_settings or []),
        batch_size=batch_size,
        texts=texts,
        preset=preset or None,
        layers=parse_layers(layers),
        each_batch=each_batch,
        rescore=rescore,
        stop_at_limit=stop_at_limit,
    )
    with opened(workspace, quiet=json, device=device) as shop:
        if chosen.layers == "traced" and not dry_run:
            ensure_trace(shop)
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
    _tell_version(shop, version, plan)
    if report is not None:
        say_report(report)
        say(f"Next: perdure report {version.name}, perdure approve {version.name} --as NAME", style="dim")


def read_text(path: Path) -> tuple[str, ...]:
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


def parse_layers(given: str) -> "str | list[int] | None":
    """`traced`, `depth`, or numbers separated by commas; None for nothing."""
    numbers = [part.strip() for part in given.split(",")]
    return [int(number) for number in numbers] if all(map(str.isdecimal, numbers)) else given or None


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


def _tell_version(shop: "Workspace", version: "Version", plan: "EditPlan") -> None:
    """What was made, and where it differs from what was asked."""
    recipe = version.manifest.recipe
    count, how = recipe["facts"]["count"], f"{recipe['editor']} + {recipe['restraint']}"
    say(f"{version.name}: {counted(count, 'fact')}, {how}, on {shop.version(plan.parent).name}")
    if recipe.get("limit"):
        note(f"limit passed {recipe['limit']}", style="yellow")
    if recipe.get("stopped"):
        left = len(plan.facts) - count
        note(
            f"stopped there: the last {left} facts of the file were not taught; raise the limit in policy.toml "
            f"and teach them on {version.name}",
            style="yellow",
        )


def _tell_file(asked: "FactFile", quiet: bool) -> None:
    if quiet:
        return
    for merge in asked.merged:
        note(f"merged: {merge}", style="dim")
    for problem in asked.problems:
        note(f"left out: {problem}", style="yellow")


def _tell_plan(shop: "Workspace", plan: "EditPlan", json: bool) -> None:
    recipe, match = plan.recipe(), _preset_hint(shop, plan)
    if json:
        facts = [fact.model_dump() for fact in plan.facts]
        say_json({"parent": plan.parent, "recipe": recipe, "facts": facts, "preset_hint": match and match.name})
        return
    say(f"Would edit {shop.version(plan.parent).name} with {counted(len(plan.facts), 'fact')}; nothing was computed.")
    rows = [[fact.prompt, fact.target_new, fact.target_true or ""] for fact in plan.facts[:20]]
    table("Facts" + (" (the first 20)" if len(plan.facts) > 20 else ""), ["prompt", "new answer", "old answer"], rows)
    for name in ("editor", "preset", "config", "layers", "restraint", "restraint_config", "batch_size"):
        say(f"{name}: {recipe[name]}", style="dim")
    if match is not None:
        say(f"This model has the shape of {match.model}; published settings: --preset {match.name}")


def _preset_hint(shop: "Workspace", plan: "EditPlan") -> "Preset | None":
    """The preset that the model's shape suggests, where none was chosen and it says something about the editor."""
    from perdure.editing.presets import preset_for

    match = None if plan.preset else preset_for(shop.layout(plan.parent))
    return match if match is not None and plan.method.name in match.published else None
