"""perdure trace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import points, say, say_json, table
from perdure.cli.options import AsJson, Device, Folder, opened

if TYPE_CHECKING:
    from perdure.measuring.traced import TraceLine, TraceMeasures

_BARS = "▁▂▃▄▅▆▇█"
_STATES = {"mlp": "MLPs, {window} neighbours at a time", "hidden": "Hidden states, one at a time"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Look")(trace)


def trace(
    facts: Annotated[
        Path | None,
        typer.Argument(
            help="Facts that the model may know: .jsonl of subject, prompt and answer, or facts to edit with their "
            "old answers.",
            show_default="the built-in facts",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as draws=10.")
    ] = None,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Find the layers that carry the facts which the base knows: causal tracing. Nothing is changed.

    Computed once for the same facts and settings; `perdure edit --layers traced` edits where the largest effect is,
    and reports made afterwards show it.

    Examples:

        perdure trace

        perdure trace known.jsonl --set draws=10
    """
    from perdure.cli.change import parse_settings
    from perdure.workspace.tracing import trace_config

    config = trace_config(parse_settings(settings or []))
    with opened(workspace, quiet=json, device=device) as shop:
        found = shop.trace(facts, config)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    _say_trace(found)


def _say_trace(found: "TraceMeasures") -> None:
    for reason, count in found.left_out.items():
        say(f"Not traced: {count}; {reason}.", style="dim")
    say(
        f"{found.facts} facts. The answer has a probability of {found.clean:.3f}; noise on the subject takes "
        f"{points(found.lost.value)} points of it. What a clean state gives back, by layer (from 0):"
    )
    for state, title in _STATES.items():
        _say_map(title.format(window=found.window), [line for line in found.lines if line.state == state])
    if found.layer is None:
        say("No MLP gives anything back at the subject's last token; choose the layers by depth.")
        return
    say(f"Layers to edit by this trace: {', '.join(map(str, found.layers))} (single: {found.layer}).")
    say("Next: perdure edit FACTS --layers traced", style="dim")


def _say_map(title: str, lines: "list[TraceLine]") -> None:
    """One row of bars per class of tokens, on a scale that the rows share."""
    top = max(effect.value for line in lines for effect in line.effects)
    rows = []
    for line in lines:
        best = max(range(len(line.effects)), key=lambda layer: line.effects[layer].value)
        effect = line.effects[best]
        bars = "".join(_bar(each.value, top) for each in line.effects)
        interval = f"{points(effect.value)} ({points(effect.low)} to {points(effect.high)})"
        rows.append([line.tokens, bars, str(best), interval, str(effect.n)])
    table(title, ["restored at", "by layer", "best", "points there (95%)", "n"], rows)


def _bar(value: float, top: float) -> str:
    """One of eight heights; a dot where nothing is given back."""
    return _BARS[min(7, int(8 * value / top))] if 0 < value <= top else "·"
