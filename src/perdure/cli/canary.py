"""perdure canary start, step, end."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.console import say, say_json
from perdure.cli.options import Actor, AsJson, Folder, opened
from perdure.errors import SettingError

if TYPE_CHECKING:
    from perdure.workspace import Workspace
    from perdure.workspace.releases import Canary


class End(StrEnum):
    """How a canary ends."""

    PROMOTE = "promote"
    FALL_BACK = "fall-back"
    STOP = "stop"


group = typer.Typer(no_args_is_help=True, help="Canaries: a candidate answers a share of an alias's requests.")
Alias = Annotated[str, typer.Argument(help="Such as production.")]
_EVENTS: dict[End, Literal["promote", "fall back", "stop"]] = {
    End.PROMOTE: "promote",
    End.FALL_BACK: "fall back",
    End.STOP: "stop",
}
Why = Annotated[str, typer.Option(help="Why; it is kept.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (start, step, end):
        group.command()(command)
    app.add_typer(group, name="canary", rich_help_panel="Decide")


def start(
    version: Annotated[str, typer.Argument(help="The candidate; approved as for a promotion.")],
    alias: Alias,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="weights=0.05,0.2 hold_seconds hold_requests success failure slower sure"),
    ] = None,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Begin a canary: the candidate answers the first share of the alias's requests.

    Example: perdure canary start v1 production --set weights=0.1,0.5 --set hold_requests=200
    """
    from pydantic import ValidationError

    from perdure.governance import CanaryPlan

    given = dict(_setting(text) for text in settings or ())
    try:
        plan = CanaryPlan.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())
        raise SettingError(f"the canary's plan is not valid: {wrong}") from error
    with opened(workspace, quiet=True) as shop:
        _say(shop, shop.start_canary(version, alias, plan, actor=actor), json)


def _setting(text: str) -> tuple[str, str | list[str]]:
    name, found, value = text.partition("=")
    if not found:
        raise SettingError(f"settings are name=value; given {text!r}")
    return name, value.split(",") if name == "weights" else value


def step(
    alias: Alias,
    weight: Annotated[float, typer.Argument(help="The candidate's share of the requests, between 0 and 1.")],
    reason: Why = "",
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Give the candidate another share.

    Example: perdure canary step production 0.5
    """
    with opened(workspace, quiet=True) as shop:
        _say(shop, shop.step_canary(alias, weight, actor=actor, reason=reason), json)


def end(
    alias: Alias,
    how: Annotated[End, typer.Argument(help="How.")],
    reason: Why = "",
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """End a canary: promote the candidate, let it fall back, or stop.

    Example: perdure canary end production promote
    """
    with opened(workspace, quiet=True) as shop:
        ended = shop.end_canary(alias, _EVENTS[how], actor=actor, reason=reason)
        _say(shop, ended, json)


def _say(shop: "Workspace", canary: "Canary", json: bool) -> None:
    names = {version.id: version.name for version in shop.archive.versions()}
    stable, candidate = names[canary.stable], names[canary.candidate]
    last = canary.steps[-1]
    if json:
        facts = {"canary": canary.number, "alias": canary.alias, "stable": stable, "candidate": candidate}
        say_json({**facts, "event": last.event, "weight": last.weight, "running": canary.running})
    elif canary.running:
        say(f"canary {canary.number}: {candidate} answers {last.weight:.0%} of {canary.alias}, {stable} the rest.")
    else:
        holds = candidate if last.event == "promote" else stable
        say(f"canary {canary.number} ended ({last.event}): {canary.alias} is {holds}.")
