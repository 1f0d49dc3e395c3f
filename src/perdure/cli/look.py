"""perdure measure, report, show, versions, diff."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import out, percent, points, say, say_json, table
from perdure.cli.continual import say_tasks
from perdure.cli.courses import say_course
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.cli.pool import pool_words, say_pool
from perdure.cli.recognising import say_concepts
from perdure.cli.removing import say_removal
from perdure.errors import WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.measuring.report import Comparison, Report, RippleMeasures

_MARK = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "inconclusive": "[yellow]inconclusive[/]"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (measure, report, diff, show, versions):
        app.command(rich_help_panel="Look")(command)


def measure(
    version: Annotated[str, typer.Argument(help="A version, such as v1 or production.")],
    tasks: Annotated[list[str] | None, typer.Option("--task", help="An lm-eval task to run as well.")] = None,
    task_folder: Annotated[Path | None, typer.Option(help="A folder of lm-eval task files of your own.")] = None,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Measure a version against its parent and the base, and keep the report.

    Models that were measured before are not run again.

    Examples:

        perdure measure v1

        perdure measure v1 --task hellaswag
    """
    with opened(workspace, quiet=json, device=device) as shop:
        found = shop.measure(version, tasks=tasks or (), task_folder=task_folder, actor=actor)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    say_report(found)


def report(
    version: Annotated[str, typer.Argument(help="A measured version.")],
    file: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page.", show_default="VERSION.html", dir_okay=False)
    ] = None,
    language: Annotated[str, typer.Option("--language", help="Of the page: en or ja.")] = "en",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Write the report of a version as one HTML page that needs no network.

    Example: perdure report v1 --language ja
    """
    from perdure.content import write_atomic
    from perdure.web.words import known

    spoken = known(language)
    with opened(workspace, quiet=True) as shop:
        name = shop.version(version).name
        found = shop.report(version)
    if found is None:
        raise WorkspaceError(f"{name} has no report; run perdure measure {name} first")
    if json:
        say_json(found.model_dump(mode="json"))
        return
    from perdure.web.report import render_report

    target = file or Path(f"{name}.html")
    write_atomic(target, render_report(found, language=spoken).encode())
    say(str(target))


def show(
    version: Annotated[str, typer.Argument(help="A version, an alias, or the first six or more digits of an id.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show what a version is: parent, recipe, status, storage, facts.

    Example: perdure show v1
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.version(version)
        storage = shop.archive.storage(found)
        facts = shop.facts(found)
        names = {other.id: other.name for other in shop.archive.versions()}
    card = {
        "version": found.name,
        "id": found.id,
        "parent": names.get(found.parent or ""),
        "status": found.status,
        "requested by": found.requester,
        "created": found.created,
        "bytes added": storage.added_bytes,
        "bytes of the model": storage.model_bytes,
        "recipe": found.manifest.recipe,
        "facts": [
            {"id": fact.id, "prompt": fact.prompt, "target_new": fact.target_new, "source": fact.source}
            for fact in facts
        ],
    }
    if json:
        say_json(card)
        return
    table(
        found.name,
        ["", ""],
        [[name, "" if value is None else str(value)] for name, value in card.items() if name != "facts"],
    )
    if facts:
        rows = [[fact.short_id, fact.prompt, fact.target_new, fact.source or ""] for fact in facts]
        table("Facts asked for", ["id", "prompt", "new answer", "from"], rows)


def _made_with(recipe: "Mapping[str, Any]") -> str:
    """How a version was made, in a few words."""
    if "editor" in recipe:
        return f"{recipe['editor']} + {recipe['restraint']}"
    if recipe.get("kind") == "tuning":
        return f"{recipe['config']['method']}, task {recipe['task']['name']}"
    if recipe.get("kind") == "pool":
        return f"pool, {pool_words(recipe)}"
    return str(recipe.get("kind", "base"))


def versions(workspace: Folder = Path(), json: AsJson = False) -> None:
    """List all versions, what points to them, and what they were made with.

    Example: perdure versions
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.versions()
        heads = shop.archive.aliases()
    names = {version.id: version.name for version in found}
    rows = []
    for version in found:
        recipe = version.manifest.recipe
        made = _made_with(recipe)
        if "removed" in recipe:
            made = f"{names[recipe['removed']['from']]} without {recipe['removed']['count']}, {made}"
        count = recipe.get("facts", {}).get("count", 0)
        pointing = ", ".join(alias for alias, head in heads.items() if head.id == version.id)
        parent = names.get(version.parent or "", "")
        rows.append(
            [version.name, parent, made, str(count), version.status, pointing, version.requester, version.id[:12]]
        )
    columns = ["version", "on", "made with", "facts", "status", "aliases", "requested by", "id"]
    if json:
        say_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table("Versions", columns, rows)


def diff(
    first: Annotated[str, typer.Argument(help="A version, or a model folder, GGUF file or hub id.")],
    second: Annotated[str, typer.Argument(help="Another one of the same architecture.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Compare two versions, or any two checkpoints made elsewhere: learnt, forgotten, where weights moved.

    Examples:

        perdure diff v0 v2

        perdure diff ./base-model ./fine-tuned-model   (checkpoints have a slash in their name)
    """
    from perdure.cli.start import quieten
    from perdure.workspace.differences import diff_checkpoints, diff_versions

    quieten()
    if any("/" in source or source.endswith(".gguf") for source in (first, second)):
        found = diff_checkpoints(first, second)
    else:
        with opened(workspace, quiet=json) as shop:
            found = diff_versions(shop, shop.version(first), shop.version(second))
    if json:
        say_json(found.model_dump(mode="json"))
        return
    say(f"{found.first} → {found.second}: {found.changed} of {found.tensors} tensors differ.")
    rows = [
        [
            matrix.name,
            _rank(matrix.rank),
            f"{matrix.norm:.3g}",
            percent(matrix.relative_norm),
            f"{matrix.sigma_max:.3g}",
        ]
        for matrix in found.matrices
    ]
    if rows:
        columns = ["tensor (largest moves first)", "rank", "‖ΔW‖", "of ‖W‖", "σ_max(ΔW)"]
        table("Where the weights moved", columns, rows)
    if found.changed > len(rows):
        say(f"and {found.changed - len(rows)} more that moved less", style="dim")
    for title, lines in (("Learnt", found.learnt), ("Lost", found.lost)):
        if lines:
            table(title, ["question", found.first, found.second], [list(line) for line in lines])
    if found.ripple:
        say_comparisons("Ripple effects", found.ripple)
        say(found.ripple_summary)
    if found.comparisons:
        say_comparisons("What was kept", found.comparisons)
    if found.note:
        say(found.note, style="dim")


def _rank(rank: int | None) -> str:
    return "full" if rank is None else str(rank)


def say_report(report: "Report") -> None:
    """Print the short form of a report."""
    if report.removal is not None:
        say_removal(report.removal)
    if report.edits is not None:
        say_comparisons("What was learnt", report.edits.comparisons)
    if report.tasks is not None:
        say_tasks(report.tasks)
    if report.concepts is not None:
        say_concepts(report.concepts)
    if report.pool is not None:
        say_pool(report.pool)
    if report.ripple is not None:
        _say_ripple(report.ripple)
    if report.course is not None:
        say_course(report.course)
    if report.retention is not None:
        say_comparisons("What was kept", (report.retention.overall, *report.retention.parts))
    if report.harness:
        say_comparisons("lm-eval", report.harness)
    language = report.language
    if language is not None:
        interval = f"({language.ratio_low:.4f} to {language.ratio_high:.4f}, {language.passages} passages)"
        say(
            f"Perplexity {language.perplexity_before:.2f} → {language.perplexity_after:.2f}, "
            f"×{language.ratio:.4f} {interval}"
        )
    for verdict in report.verdicts:
        if verdict.verdict != "pass":
            out.print(f"{_MARK[verdict.verdict]} ", end="")
            say(f"{verdict.gate}: {verdict.reason}")
    out.print(f"Gates: {_MARK[report.verdict]}")


def _say_ripple(ripple: "RippleMeasures") -> None:
    if ripple.comparisons:
        say_comparisons("Ripple effects", ripple.comparisons)
    if ripple.summary:
        say(ripple.summary)
    for reason, count in ripple.left_out.items():
        say(f"Questions not asked: {count}; {reason}.", style="dim")


def say_comparisons(title: str, comparisons: "tuple[Comparison, ...]") -> None:
    """Print measures before and after, with paired differences, intervals and n."""
    rows = [
        [
            comparison.label,
            comparison.how,
            percent(comparison.before.value),
            percent(comparison.after.value),
            points(comparison.difference.value),
            f"{points(comparison.difference.low)} to {points(comparison.difference.high)}",
            str(comparison.difference.n),
        ]
        for comparison in comparisons
    ]
    table(title, ["measure", "judged by", "before", "after", "points", "95% interval", "n"], rows)
