"""perdure members grant, withdraw, list."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import say, say_json, table
from perdure.cli.options import Actor, AsJson, Folder, opened

group = typer.Typer(
    no_args_is_help=True,
    help="Roles: requester, approver, operator, auditor, admin. The first member is an admin; from then on everybody "
    "needs a role for what they do.",
)
Name = Annotated[str, typer.Argument(help="Who; machine:NAME for a program.")]
Role = Annotated[str, typer.Argument(help="requester, approver, operator, auditor or admin.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group.command()(grant)
    group.command()(withdraw)
    group.command("list")(everybody)
    app.add_typer(group, name="members", rich_help_panel="Decide")


def grant(
    name: Name,
    role: Role,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Give somebody a role.

    Examples:

        perdure members grant sato admin --as sato

        perdure members grant kato approver --as sato
    """
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        shop.grant(name, role, by=actor or current_user())
        roles = shop.roles(name)
    _done(name, roles, json)


def withdraw(
    name: Name,
    role: Role,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Take a role from somebody; the last admin stays.

    Example: perdure members withdraw kato operator --as sato
    """
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        shop.withdraw(name, role, by=actor or current_user())
        roles = shop.roles(name)
    _done(name, roles, json)


def everybody(workspace: Folder = Path(), json: AsJson = False) -> None:
    """List everybody who ever had a role, with the roles that they have now.

    Example: perdure members list
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.members()
    if json:
        say_json({name: sorted(roles) for name, roles in found.items()})
    elif found:
        table(
            "Members", ["who", "roles"], [[name, ", ".join(sorted(roles)) or "none"] for name, roles in found.items()]
        )
    else:
        say("Nobody was granted a role: the workspace is that of one local user, and four eyes alone hold.")


def _done(name: str, roles: frozenset[str], json: bool) -> None:
    if json:
        say_json({"name": name, "roles": sorted(roles)})
    else:
        say(f"{name} is now {', '.join(sorted(roles)) or 'without a role'}.")
