"""perdure demo."""

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import note, progress, say, say_json, table
from perdure.cli.look import say_report
from perdure.cli.options import AsJson
from perdure.errors import WorkspaceError

if TYPE_CHECKING:
    from perdure.measuring.report import Comparison, Report
    from perdure.workspace import Workspace

_ENGINEER, _APPROVER, _OPERATOR = "kato", "mori", "sato"
_SIDE_BY_SIDE = (
    "edits.prompt.generation_contains",
    "edits.prompt.probability",
    "edits.paraphrase.generation_contains",
    "edits.paraphrase.probability",
    "edits.neighbour.generation_contains",
    "edits.neighbour.probability",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Parts")(demo)


def demo(
    folder: Annotated[Path, typer.Argument(help="The workspace to create.")] = Path("demo-shop"),
    model: Annotated[str, typer.Option("--model", "-m", help="As for `perdure init`.")] = "smollm2-135m",
    facts: Annotated[
        Path | None, typer.Option(help="Facts of your own instead of the built-in ones.", exists=True, dir_okay=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """Go through everything once on a real model: edit, measure, approve, promote, roll back, verify.

    The same facts are edited twice from the same base: by MEMIT with PRUNE, and by plain fine-tuning as the
    baseline. Run again, it goes on where it stopped.

    Example: perdure demo demo-shop
    """
    from perdure.cli.start import quieten
    from perdure.content import write_atomic
    from perdure.web.report import render_report

    quieten()
    start = time.perf_counter()
    file = facts or Path(str(resources.files("perdure.demo").joinpath("facts.jsonl")))
    with progress(quiet=json) as advance:
        shop = _workspace(folder, model, advance)
        note(f"1. {folder} holds {model} as v0, which serves as production.")
        edited = _candidate(shop, file, "memit", "prune")
        report = _measured(shop, edited)
        note(f"2. {edited.name}: MEMIT + PRUNE, measured against v0.")
        baseline = _candidate(shop, file, "fine_tuning", "none")
        plain = _measured(shop, baseline)
        note(f"3. {baseline.name}: plain fine-tuning of the same facts, the baseline.")
        page = folder / f"{edited.name}.html"
        write_atomic(page, render_report(report).encode())
        steps = _decide(shop, edited, baseline, report)
    figures = _side_by_side(report, plain)
    seconds = time.perf_counter() - start
    if json:
        found = {"figures": figures, "steps": steps, "report": str(page), "seconds": seconds}
        say_json({**found, "memit": report.model_dump(mode="json"), "fine_tuning": plain.model_dump(mode="json")})
        return
    say_report(report)
    columns = ["measure", "v0", f"{edited.name} memit + prune", f"{baseline.name} fine-tuning"]
    table("Side by side (shares with 95% intervals)", columns, figures)
    for step in steps:
        say(step)
    say(f"The report: {page}   ({seconds / 60:.1f} minutes in all)", style="bold")


def _workspace(folder: Path, model: str, advance: Any) -> "Workspace":
    from perdure.workspace import Workspace

    try:
        return Workspace.open(folder, progress=advance)
    except WorkspaceError:
        return Workspace.init(folder, model, actor=_OPERATOR, progress=advance)


def _candidate(shop: "Workspace", file: Path, editor: str, restraint: str) -> Any:
    """The version that this edit of v0 gives; found again if it was made before."""
    from perdure.workspace import Settings

    plan, _ = shop.plan(file, Settings(editor=editor, restraint=restraint), on="v0")
    wanted = plan.recipe()
    for version in shop.archive.versions():
        recipe = version.manifest.recipe
        if version.parent == plan.parent and wanted.items() <= dict(recipe).items():
            return version
    return shop.carry_out(plan, actor=_ENGINEER)


def _measured(shop: "Workspace", version: Any) -> "Report":
    return shop.report(version) or shop.measure(version, actor=_ENGINEER)


def _decide(shop: "Workspace", edited: Any, baseline: Any, report: "Report") -> list[str]:
    """Approval by a second person, promotion, roll-back, verification; each step in words."""
    steps = [f"4. Gates of {edited.name}: {report.verdict}."]
    if shop.version(baseline).status != "rejected":
        shop.reject(baseline, actor=_APPROVER, reason="the baseline of the demonstration")
    if report.verdict == "fail":
        return [*steps, f"   {edited.name} cannot be approved; see the report."]
    shop.approve(edited, actor=_APPROVER, comment="read the report")
    shop.promote(edited, "production", actor=_OPERATOR)
    steps.append(f"5. {_APPROVER} approved {edited.name}; {_OPERATOR} promoted it to production.")
    began = time.perf_counter()
    back = shop.rollback("production", actor=_OPERATOR)
    steps.append(f"6. production rolled back to {back.name}, bit for bit, in {time.perf_counter() - began:.1f} s.")
    shop.promote(edited, "production", actor=_OPERATOR)
    storage = shop.archive.storage(edited)
    share = 100 * storage.added_bytes / storage.model_bytes
    steps.append(
        f"7. {edited.name} serves again; it takes {storage.added_bytes / 1e6:.1f} MB, {share:.2f}% of the model."
    )
    found = shop.archive.verify()
    state = "sound" if found.ok else "DAMAGED"
    steps.append(f"8. verify: {state}, {found.objects} objects and {found.ledger_rows} ledger entries.")
    return steps


def _side_by_side(first: "Report", second: "Report") -> list[list[str]]:
    rows = []
    both = [_comparisons(report) for report in (first, second)]
    for name in (*_SIDE_BY_SIDE, "retention"):
        if name in both[0] and name in both[1]:
            one, two = both[0][name], both[1][name]
            rows.append([f"{one.label} ({one.how})", *(_share(part) for part in (one.before, one.after, two.after))])
    if first.language is not None and second.language is not None:
        ratios = [f"×{report.language.ratio:.4f}" for report in (first, second) if report.language is not None]
        rows.append(["perplexity of held-out text", "×1", *ratios])
    return rows


def _comparisons(report: "Report") -> "dict[str, Comparison]":
    found = {comparison.name: comparison for comparison in (report.edits.comparisons if report.edits else ())}
    if report.retention is not None:
        found["retention"] = report.retention.overall
    return found


def _share(share: Any) -> str:
    return f"{100 * share.value:.1f}% ({100 * share.low:.0f} to {100 * share.high:.0f}, n = {share.n})"
