"""perdure kpi add, import, list, compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import say, say_json, table
from perdure.cli.options import Actor, AsJson, Folder, opened

if TYPE_CHECKING:
    from perdure.governance.curves import Figure
    from perdure.workspace import Workspace
    from perdure.workspace.observations import Kpi

group = typer.Typer(
    no_args_is_help=True,
    help="KPIs: what a company measures of its own work while a version serves. Rows stay; a new row corrects.",
)
_MODEL = {
    "retention": "what it could do, against the base",
    "perplexity": "perplexity over the base's",
    "condition": "condition number over the base's",
    "norm": "norm of all changes over the matrix's",
    "edits": "facts taught since the base",
    "old_edits": "facts of earlier versions still answered",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group.command()(add)
    group.command("import")(read)
    group.command("list")(entered)
    group.command()(compare)
    app.add_typer(group, name="kpi", rich_help_panel="Look")


def add(
    name: Annotated[str, typer.Argument(help='Such as "rework hours".')],
    value: Annotated[float, typer.Argument(help="The figure; after -- where it is negative.")],
    version: Annotated[str, typer.Option("--version", help="The version that served.")],
    start: Annotated[str, typer.Option("--from", help="The first day of the period, such as 2026-03-01.")],
    end: Annotated[str, typer.Option("--to", help="Its last day.")],
    unit: Annotated[str, typer.Option(help='Such as "h per week".')],
    better: Annotated[str, typer.Option(help="Which direction is good: higher or lower.")],
    n: Annotated[int | None, typer.Option(help="How many cases stand behind it.")] = None,
    corrects: Annotated[int | None, typer.Option(help="The number of the row that this one corrects.")] = None,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Enter one figure for a version and a period.

    Example: perdure kpi add "rework hours" 14.5 --unit "h per week" --better lower --version v1 --from 2026-03-02
    --to 2026-03-08
    """
    values = {"name": name, "value": value, "version": version, "period_start": start, "period_end": end}
    values |= {"unit": unit, "better": better, "n": n, "corrects": corrects}
    with opened(workspace, quiet=True) as shop:
        row = shop.enter_kpi(values, actor=actor)
        found = _plain(shop, [row])[0]
    if json:
        say_json(found)
    else:
        say(f"row {row.sequence}: {row.name} of {found['version']} is {row.value:g} {row.unit}")


def read(
    file: Annotated[
        Path, typer.Argument(help="CSV: name, unit, better, version, period_start, period_end, value and, if known, n.")
    ],
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Enter the rows of a CSV file: all of them, or none, with every bad row named.

    Example: perdure kpi import kpis.csv
    """
    with opened(workspace, quiet=True) as shop:
        rows = shop.import_kpis(file, actor=actor)
        found = _plain(shop, rows)
    if json:
        say_json(found)
    else:
        say(f"{len(rows)} rows entered")


def entered(
    everything: Annotated[bool, typer.Option("--all", help="Those as well that a later row corrects.")] = False,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """List what was entered, oldest first.

    Example: perdure kpi list --all
    """
    with opened(workspace, quiet=True) as shop:
        found = _plain(shop, shop.kpis(corrected=everything))
    if json:
        say_json(found)
        return
    rows = [
        [str(row["sequence"]), row["name"], f"{row['value']:g} {row['unit']}", row["version"],
         f"{row['period_start']} to {row['period_end']}", str(row["n"] or ""), row["actor"],
         "" if row["in_force"] else "corrected"]
        for row in found
    ]  # fmt: skip
    table("KPIs", ["row", "what", "value", "version", "period", "n", "entered by", ""], rows)


def compare(
    before: Annotated[str, typer.Argument(help="The version that served before.")],
    after: Annotated[str, typer.Argument(help="The one that served after it.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show KPIs under two versions, and beside them what the model's reports say.

    Before and after is no experiment: what else changed between the periods is in the difference as well.

    Example: perdure kpi compare v0 v1
    """
    from perdure.measuring.kpis import NO_EXPERIMENT

    with opened(workspace, quiet=True) as shop:
        found = shop.compare_kpis(before, after)
        names = [shop.version(ref).name for ref in (before, after)]
        model = [_figures(shop, name) for name in names]
    if json:
        measures = [{key: vars(value) for key, value in side.items()} for side in model]
        kpis = [row.model_dump(mode="json") for row in found]
        say_json({"before": names[0], "after": names[1], "kpis": kpis, "model": measures, "note": NO_EXPERIMENT})
        return
    rows = [
        [row.name, row.unit, f"{row.contrast.before:g} (n = {row.contrast.periods[0]})",
         f"{row.contrast.after:g} (n = {row.contrast.periods[1]})", f"{row.contrast.difference:+g}",
         "" if row.contrast.low is None else f"{row.contrast.low:+.3g} to {row.contrast.high:+.3g}", row.says]
        for row in found
    ]  # fmt: skip
    table("KPIs (n: periods)", ["what", "unit", names[0], names[1], "difference", "95% interval", "says"], rows)
    known = [name for name in _MODEL if name in model[0] or name in model[1]]
    if known:
        table("The model, from its reports", ["what", *names], [_row(name, model) for name in known])
    say(NO_EXPERIMENT)


def _row(name: str, model: "list[dict[str, Figure]]") -> list[str]:
    cells = [f"{side[name].value:.4g}" if name in side else "not measured" for side in model]
    return [_MODEL[name], *cells]


def _figures(shop: "Workspace", name: str) -> "dict[str, Figure]":
    from perdure.governance.curves import figures_of

    return figures_of(shop.archive.report(shop.version(name)) or {})


def _plain(shop: "Workspace", rows: "list[Kpi]") -> list[dict[str, Any]]:
    names = {version.id: version.name for version in shop.archive.versions()}
    return [{**vars(row), "version": names[row.version]} for row in rows]
