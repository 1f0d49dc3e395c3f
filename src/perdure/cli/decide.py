"""perdure approve, reject, promote, rollback."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import say, say_json
from perdure.cli.options import Actor, AsJson, Folder, opened

Who = Annotated[str, typer.Option("--as", envvar="PERDURE_USER", help="Who decides; never who asked for the change.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (approve, reject, promote, rollback):
        app.command(rich_help_panel="Decide")(command)


def approve(
    version: Annotated[str, typer.Argument(help="A measured candidate.")],
    actor: Who,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Consent to a version as it was measured, under the policy in force.

    The consent names three hashes (version, report, policy) and is void when one of them changes. Who asked
    for a change cannot approve it.

    Example: perdure approve v1 --as mori
    """
    with opened(workspace, quiet=True) as shop:
        shop.approve(version, actor=actor, comment=comment)
        name = shop.version(version).name
    _done(f"{name} is approved by {actor}.", {"version": name, "approved_by": actor}, json)


def reject(
    version: Annotated[str, typer.Argument(help="A candidate.")],
    actor: Who,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Refuse a version; later edits no longer stand on it.

    Example: perdure reject v2 --as mori --reason "forgets the warranty terms"
    """
    with opened(workspace, quiet=True) as shop:
        shop.reject(version, actor=actor, reason=reason)
        name = shop.version(version).name
    _done(f"{name} is rejected by {actor}.", {"version": name, "rejected_by": actor, "reason": reason}, json)


def promote(
    version: Annotated[str, typer.Argument(help="A version.")],
    alias: Annotated[str, typer.Argument(help="Such as staging or production.")],
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Let an alias point to a version; production needs a valid approval.

    Example: perdure promote v1 production
    """
    with opened(workspace, quiet=True) as shop:
        shop.promote(version, alias, actor=actor)
        name = shop.version(version).name
    _done(f"{alias} is now {name}.", {"alias": alias, "version": name}, json)


def rollback(
    alias: Annotated[str, typer.Argument(help="Such as production.")],
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Let an alias point to what it held before, verified bit for bit first.

    Example: perdure rollback production
    """
    import time

    with opened(workspace, quiet=True) as shop:
        start = time.perf_counter()
        version = shop.rollback(alias, actor=actor)
        seconds = time.perf_counter() - start
    text = f"{alias} is back at {version.name}: every tensor has the hash it had ({seconds:.1f} s)."
    _done(text, {"alias": alias, "version": version.name, "id": version.id, "seconds": seconds}, json)


def _done(text: str, facts: dict[str, object], json: bool) -> None:
    if json:
        say_json(facts)
    else:
        say(text)
