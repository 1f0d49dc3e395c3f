"""perdure notify test, notify send."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import note, say, say_json
from perdure.cli.monitor import seconds_of
from perdure.cli.options import Actor, AsJson, Folder, opened
from perdure.errors import PerdureError, WorkspaceError

if TYPE_CHECKING:
    from perdure.integrations.delivering import Sent

group = typer.Typer(no_args_is_help=True, help="Notices by signed webhooks and e-mail, to whom notify.toml names.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group.command("test")(try_out)
    group.command()(send)
    app.add_typer(group, name="notify", rich_help_panel="Decide")


def try_out(actor: Actor = "", workspace: Folder = Path(), json: AsJson = False) -> None:
    """Send everybody in notify.toml a test. Exit code 5 when somebody did not take it.

    Example: perdure notify test
    """
    from perdure.integrations.delivering import try_targets
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        found = try_targets(shop, actor=actor or current_user())
    _say(found, json)
    _refuse(found)


def send(
    every: Annotated[str, typer.Option(metavar="TIME", help="Again after so long: 10s, 1m. Once without.")] = "",
    after: Annotated[int | None, typer.Option("--after", hidden=True)] = None,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Send what happened since last time. Commands that change something start this by themselves.

    `perdure serve` sends what people do in the browser. Where programs write to the workspace, let this run.

    Example: perdure notify send --every 10s
    """
    from perdure.integrations.delivering import send as send_all

    pause = seconds_of(every) if every else None
    with opened(workspace, quiet=True) as shop:
        while True:
            try:
                found = send_all(shop, after=after)
            except PerdureError as error:
                if pause is None:
                    raise
                note(f"nothing was sent: {error}", style="red")
            else:
                _say([one for one in found if pause is None or one != type(one)(one.target)], json)
                if pause is None:
                    _refuse(found)
                    return
            time.sleep(pause)


def _say(found: "list[Sent]", json: bool) -> None:
    if json:
        say_json([vars(one) for one in found])
        return
    for one in found:
        refused = f", {one.refused} refused for good" if one.refused else ""
        waits = f", the rest waits: {one.waiting}" if one.waiting else ""
        say(f"{one.target}: {one.delivered} delivered{refused}{waits}")


def _refuse(found: "list[Sent]") -> None:
    waiting = [one.target for one in found if one.waiting]
    if waiting:
        raise WorkspaceError(f"not delivered to {', '.join(waiting)}; perdure notify send tries again")
