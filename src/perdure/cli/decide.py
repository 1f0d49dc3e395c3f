"""perdure approve, reject, comment, promote, rollback, break-glass, review."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import note, say, say_json
from perdure.cli.options import Actor, AsJson, Folder, opened
from perdure.errors import SettingError, WorkspaceError

if TYPE_CHECKING:
    from perdure.workspace import Workspace

_LONGEST = 168  # hours that a broken glass counts

Who = Annotated[str, typer.Option("--as", envvar="PERDURE_USER", help="Who decides; never who asked for the change.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (approve, reject, comment, promote, rollback, break_glass, review):
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
    for a change, or for one below it that nobody approved, cannot approve it.

    Example: perdure approve v1 --as mori
    """
    with opened(workspace, quiet=True) as shop:
        _say_alone(shop)
        standing = shop.approve(version, actor, comment)
        name = shop.version(version).name
    text = f"{name} is approved by {actor}."
    if not standing.enough:
        text += f" For production {standing.missing}."
    _done(text, {"version": name, "approved_by": actor, "given": standing.given, "missing": standing.missing}, json)


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
        shop.reject(version, actor, reason)
        name = shop.version(version).name
    _done(f"{name} is rejected by {actor}.", {"version": name, "rejected_by": actor, "reason": reason}, json)


def comment(
    version: Annotated[str, typer.Argument(help="A version.")],
    text: Annotated[str, typer.Argument(help="What to say; without it, what was said is shown.")] = "",
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Write something about a version, or read what was written.

    Examples:

        perdure comment v1 "the prices are those of May" --as mori

        perdure comment v1
    """
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        if text:
            shop.comment(version, actor or current_user(), text)
        found = shop.comments(version)
    if json:
        say_json([vars(one) for one in found])
        return
    for one in found:
        say(f"{one.time[:19].replace('T', ' ')} {one.actor}: {one.text}")


def promote(
    version: Annotated[str, typer.Argument(help="A version.")],
    alias: Annotated[str, typer.Argument(help="Such as staging or production.")],
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Let an alias point to a version, if as many people approved it as the policy says.

    Example: perdure promote v1 production
    """
    with opened(workspace, quiet=True) as shop:
        _say_alone(shop)
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


def break_glass(
    version: Annotated[str, typer.Argument(help="A version.")],
    alias: Annotated[str, typer.Argument(help="Such as production.")],
    actor: Who,
    reason: Annotated[str, typer.Option(help="Why nobody else can be waited for; it is kept.")],
    hours: Annotated[float, typer.Option(help="When it expires, at most 168 hours from now.")] = 24.0,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Let an alias point to a version that nobody approved. For emergencies; everybody is told until it is reviewed.

    When the time is over, the version must have been approved; otherwise it is taken back.

    Example: perdure break-glass v1 production --as mori --reason "the shop quotes wrong prices" --hours 8
    """
    from datetime import timedelta

    if not 0 < hours <= _LONGEST:
        raise SettingError(f"--hours lies above 0 and is at most {_LONGEST}; given {hours:g}")
    with opened(workspace, quiet=True) as shop:
        broken = shop.break_glass(version, alias, actor, reason, timedelta(hours=hours))
        name = shop.version(version).name
    text = (
        f"THE GLASS IS BROKEN: {alias} is now {name}, approved by nobody, until {broken.expires[:16]} UTC. Somebody "
        f"other than {actor} reviews it: perdure review {broken.sequence} --as NAME --comment TEXT"
    )
    _done(text, {"alias": alias, "version": name, "emergency": broken.sequence, "expires": broken.expires}, json)


def review(
    actor: Who,
    comment: Annotated[str, typer.Option(help="What you think of it; it is kept.")],
    emergency: Annotated[
        int | None, typer.Argument(help="Its number, as every command shows it.", show_default="the only open one")
    ] = None,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Note that you looked at a broken glass; who broke it cannot. The version still needs approval in time.

    Example: perdure review --as kato --comment "right so"
    """
    with opened(workspace, quiet=True) as shop:
        number = emergency if emergency is not None else _only_open(shop)
        shop.review(number, actor, comment)
    _done(f"Emergency {number} is reviewed by {actor}.", {"emergency": number, "reviewed_by": actor}, json)


def _only_open(shop: "Workspace") -> int:
    found = [str(one.sequence) for one in shop.emergencies(unreviewed=True)]
    if len(found) != 1:
        what = f"{len(found)} are open ({', '.join(found)}); name one" if found else "none is open"
        raise WorkspaceError(f"which emergency is reviewed is not clear: {what}")
    return int(found[0])


def _say_alone(shop: "Workspace") -> None:
    if not shop.members():
        note("Nobody was granted a role here: names are taken as given. See perdure members.", style="dim")


def _done(text: str, facts: dict[str, object], json: bool) -> None:
    if json:
        say_json(facts)
    else:
        say(text)
