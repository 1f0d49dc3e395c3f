"""perdure find, fact, history."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import say, say_json, table
from perdure.cli.options import AsJson, Folder, opened

if TYPE_CHECKING:
    from perdure.workspace.teachings import Lineage

_HOLDS = {True: "yes", False: "NO", None: "not asked"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (find, fact, history):
        app.command(rich_help_panel="Look")(command)


def find(
    text: Annotated[str, typer.Argument(help="Words of a subject, a prompt, an answer, a source, a task.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Find facts and tasks that versions were taught, the newest first.

    Example: perdure find warranty
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.search(text, limit=limit)
    if json:
        say_json([vars(one) for one in found])
        return
    rows = [
        [one.id[:12], _words(one.shown), one.version, one.requester, one.time[:10], _HOLDS[one.holds]] for one in found
    ]
    table(f"{len(found)} found", ["id", "what", "taught in", "asked for by", "on", "holds"], rows)


def _words(shown: Mapping[str, Any]) -> str:
    if "prompt" in shown:
        return f"{shown['prompt']} → {shown['target_new']}"
    return f"task {shown['name']} ({shown['train_rows']} rows)"


def fact(
    name: Annotated[str, typer.Argument(metavar="ID", help="A fact's id, or a task's, or its first digits.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show everything about one fact or task: who asked, when, where it lives, whether it still holds.

    Example: perdure fact 84c636653fed
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.lineage_of(name)
    if json:
        say_json({**_plain(found), "holds": found.holds})
        return
    rows = [
        ["what", _words(found.shown)],
        ["id", found.id],
        ["old answer", str(found.shown.get("target_true") or "not told")],
        ["from", str(found.shown.get("source") or "not told")],
        *(["asked for", f"{one.version} by {one.requester}, {one.time[:19]}"] for one in found.taught),
        *(["taken out", f"{one.version} by {one.requester}, {one.time[:19]}"] for one in found.removed),
        ["lives in", ", ".join(found.lives_in) or "no version"],
        ["served by", ", ".join(found.served_by) or "no alias"],
        ["holds", _held(found)],
        *(["conflicts with", f"{_words(one.shown)} ({one.version}, {one.requester})"] for one in found.conflicts),
    ]
    table(found.kind, ["", ""], rows)


def _held(found: "Lineage") -> str:
    if not found.answers:
        return "not asked yet: measure a version"
    last = found.answers[-1]
    return f"{_HOLDS[found.holds]}: {last.hits} of {last.n} answered as taught, in the report of {last.version}"


def _plain(found: "Lineage") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(found)


def history(
    alias: Annotated[str, typer.Argument(help="Such as production.")] = "production",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show what served when: every version that an alias held, from when to when, moved and approved by whom.

    Example: perdure history production
    """
    with opened(workspace, quiet=True) as shop:
        served = shop.history(alias)
        canaries = shop.canaries(alias)
        names = {version.id: version.name for version in shop.archive.versions()}
    if json:
        say_json(
            {
                "served": [{**vars(time), "version": names[time.version], "id": time.version} for time in served],
                "canaries": [
                    {
                        **vars(canary),
                        "stable": names[canary.stable],
                        "candidate": names[canary.candidate],
                        "plan": canary.plan.model_dump(),
                        "steps": [vars(step) for step in canary.steps],
                    }
                    for canary in canaries
                ],
            }
        )
        return
    rows = [
        [
            time.since[:19],
            (time.until or "now")[:19],
            names[time.version],
            time.kind,
            time.actor,
            ", ".join(time.approvers),
        ]
        for time in served
    ]
    table(f"{alias} (UTC)", ["from", "until", "version", "how", "by", "approved by"], rows)
    steps = [
        [step.time[:19], f"{names[canary.candidate]} beside {names[canary.stable]}", step.event, f"{step.weight:.0%}",
         step.actor, step.reason]
        for canary in canaries
        for step in canary.steps
    ]  # fmt: skip
    if steps:
        table("Canaries", ["at", "what", "event", "share", "by", "why"], steps)
    if not served:
        say(f"No version was ever promoted to {alias}.")
