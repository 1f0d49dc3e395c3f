"""perdure monitor run, monitor status, metrics."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import note, say, say_json, table
from perdure.cli.options import AsJson, Device, Folder, opened
from perdure.errors import PerdureError, SettingError

if TYPE_CHECKING:
    from perdure.workspace import Workspace
    from perdure.workspace.observations import Observation

group = typer.Typer(no_args_is_help=True, help="The monitor: what serves, asked again; drift beyond the policy.")
Alias = Annotated[str, typer.Option("--alias", help="Whose version.")]
Asker = Annotated[str, typer.Option("--as", envvar="PERDURE_USER", help="Who asks.", show_default="perdure itself")]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ORDER = {"alert": 0, "unclear": 1, "fine": 2}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group.command()(run)
    group.command()(status)
    app.add_typer(group, name="monitor", rich_help_panel="Look")
    app.command(rich_help_panel="Look")(metrics)


def run(
    alias: Alias = "production",
    every: Annotated[str, typer.Option(metavar="TIME", help="Again after so long: 30m, 6h, 1d. Once without.")] = "",
    actor: Asker = "",
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Ask what an alias holds again: the retention suite, held-out text, old edits by age. Kept in the ledger.

    Exit code 1 when something is beyond a limit of the policy; with --every it goes on, and `notify.toml` says who
    hears of it.

    Examples:

        perdure monitor run

        perdure monitor run --alias production --every 6h
    """
    pause = seconds_of(every) if every else None
    while True:
        try:
            with opened(workspace, quiet=json, device=device) as shop:
                seen = shop.observe(alias, actor=actor)
                told = _plain(shop, seen)
        except PerdureError as error:
            if pause is None:
                raise
            note(f"not asked this time: {error}", style="red")
        else:
            _say(seen, told, json)
            if pause is None:
                raise typer.Exit(1 if seen.alerts else 0)
        time.sleep(pause)


def seconds_of(text: str) -> float:
    """A length of time such as 30m or 6h, in seconds.

    Raises:
        SettingError: It is none, or shorter than a second.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found or int(found.group(1)) == 0:
        raise SettingError(f"a time is a number and s, m, h or d, such as 6h; given {text!r}")
    return int(found.group(1)) * _UNITS[found.group(2)]


def status(
    alias: Alias = "production",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show what the last asking gave, and how many there were. Exit code 1 when something is beyond a limit.

    Example: perdure monitor status
    """
    with opened(workspace, quiet=True) as shop:
        seen = shop.observations(alias)
        held = shop.archive.aliases().get(alias)
        told = [_plain(shop, one) for one in seen]
    if json:
        say_json(told)
    elif not seen:
        say(f"What {alias} holds was never asked again: perdure monitor run --alias {alias}")
    else:
        _say(seen[-1], told[-1], json)
        say(f"asked {len(seen)} times since {seen[0].time[:19]} UTC")
        if held is not None and held.id != seen[-1].version:
            say(f"{alias} holds {held.name} now, which was not asked again yet", style="yellow")
    raise typer.Exit(1 if seen and seen[-1].alerts else 0)


def metrics(workspace: Folder = Path()) -> None:
    """Print the metrics of the workspace as Prometheus reads them; no model is loaded.

    A server has them at /metrics, for auditors, operators and tokens with the scope metrics.

    Example: perdure metrics
    """
    from perdure.workspace.metrics import render_metrics

    with opened(workspace, quiet=True) as shop:
        sys.stdout.write(render_metrics(shop))


def _say(seen: "Observation", told: dict[str, Any], json: bool) -> None:
    if json:
        say_json(told)
        return
    found = sorted(seen.findings, key=lambda finding: _ORDER[finding.state])
    rows = [
        [f"{one.measure}: {one.subject}", one.against, f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})",
         str(one.n), "" if one.limit is None else f"{one.limit:.3g}", one.state.upper() if one.state == "alert" else
         one.state]
        for one in found
    ]  # fmt: skip
    title = f"{told['version']} on {seen.alias}, asked again {seen.time[:19]} UTC"
    table(title, ["what", "against", "value (95% interval)", "n", "limit", "state"], rows)
    if seen.alerts:
        say(f"{len(seen.alerts)} of {len(found)} figures are beyond the limits of the policy", style="bold red")


def _plain(shop: "Workspace", seen: "Observation") -> dict[str, Any]:
    names = {version.id: version.name for version in shop.archive.versions()}
    findings = [finding.model_dump(mode="json") for finding in seen.findings]
    return {**vars(seen), "version": names[seen.version], "findings": findings, "alerts": len(seen.alerts)}
