"""perdure log, verify, export, clean."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import say, say_json, table
from perdure.cli.options import AsJson, Folder, opened
from perdure.errors import IntegrityError


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Look")(log)
    app.command(rich_help_panel="Keep")(verify)
    app.command(rich_help_panel="Keep")(export)
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
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Write a version as a model folder: AutoModelForCausalLM.from_pretrained loads it.

    Example: perdure export v1 out/
    """
    with opened(workspace, quiet=True) as shop:
        shop.export(version, folder)
        name = shop.version(version).name
    if json:
        say_json({"version": name, "folder": str(folder)})
    else:
        say(f"{name} is in {folder}")


def clean(workspace: Folder = Path(), json: AsJson = False) -> None:
    """Move objects that nothing refers to into quarantine."""
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.collect_garbage()
    if json:
        say_json(vars(found))
    else:
        say(", ".join(f"{name}: {value}" for name, value in vars(found).items()))
