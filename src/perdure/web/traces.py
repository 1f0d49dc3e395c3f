"""The heat-maps of a causal trace as Vega-Lite specifications, and what they say in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from perdure.measuring.shares import Difference
from perdure.measuring.traced import TraceLine, TraceMeasures
from perdure.web import figures
from perdure.web.charts import ACCENT, INK, MUTED, WORSE, Spec, look

STATES = {"mlp": "MLPs", "hidden": "Hidden states"}
CARRIER = ("mlp", "last subject token")  # what editors write: the MLP, there
_ROW, _NARROW_ROW = 30, 26
_GAINS = ("given back", "taken away")
_SHORT = {
    "first subject token": "subject, first",
    "middle subject tokens": "subject, middle",
    "last subject token": "subject, last",
    "first token after": "after it, first",
    "further tokens": "after it, further",
    "last token": "last of all",
}


@dataclass(frozen=True)
class TraceRow:
    """One kind of state at one class of tokens, with the layer that gives back most."""

    line: TraceLine
    layer: int
    effect: Difference


def runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring layers as (first, last)."""
    groups = groupby(enumerate(sorted(layers)), key=lambda pair: pair[1] - pair[0])
    found = [[layer for _, layer in group] for _, group in groups]
    return [(group[0], group[-1]) for group in found]


def layer_names(layers: Sequence[int]) -> str:
    """Layers as text, such as "4 to 7 and 9"."""
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs(layers)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def strongest(line: TraceLine) -> tuple[int, Difference]:
    """The layer with the largest effect, the lowest of equal ones, and the effect."""
    layer = max(range(len(line.effects)), key=lambda place: line.effects[place].value)
    return layer, line.effects[layer]


def mean_over(line: TraceLine, layers: Sequence[int]) -> float:
    """The mean effect over some layers."""
    return sum(line.effects[layer].value for layer in layers) / len(layers)


def summary(trace: TraceMeasures, edited: Sequence[int]) -> str:
    """What the trace says, and how the edited layers stand to it, in plain words."""
    line = trace.line(*CARRIER)
    asked = (
        f"To see where the original model keeps such knowledge, {figures.counted(trace.facts, 'fact')} that it knows "
        f"{'was' if trace.facts == 1 else 'were'} asked with the subject's words blurred by noise, which costs the "
        f"answer {_amount(trace.lost.value)}, and then with single parts of the model put back as they were."
    )
    if line is None or trace.layer is None:
        return f"{asked} No layer alone gives any of it back."
    layer, effect = strongest(line)
    found = (
        f"At the last word of the subject, most comes back around layer {layer}: {_amount(effect.value)} "
        f"({figures.difference_interval(effect)}; {figures.sample(effect.n)})."
    )
    inside = [place for place in edited if place < len(line.effects)]
    return f"{asked} {found}{_edited(line, inside)}"


def _edited(line: TraceLine, edited: Sequence[int]) -> str:
    if not edited:
        return ""
    mean = _amount(mean_over(line, edited))
    if len(edited) == 1:
        return f" This update changed layer {edited[0]}, where it is {mean}."
    return f" This update changed layers {layer_names(edited)}, where it is {mean} on average."


def _amount(value: float) -> str:
    return f"{figures.points(value).removeprefix('+')} points of its probability"


def chart_words(trace: TraceMeasures, state: str) -> str:
    """One heat-map in words: for each class of tokens the layer that gives back most."""
    parts = []
    for line in _lines(trace, state):
        layer, effect = strongest(line)
        parts.append(f"{line.tokens}: at most {figures.points(effect.value)} points, layer {layer}")
    return f"{STATES.get(state, state)} put back, by layer and token. {'. '.join(parts)}."


def rows(trace: TraceMeasures) -> dict[str, list[TraceRow]]:
    """From each kind of state, in words, to a row for each class of tokens."""
    found: dict[str, list[TraceRow]] = {}
    for line in trace.lines:
        found.setdefault(STATES.get(line.state, line.state), []).append(TraceRow(line, *strongest(line)))
    return found


def darkest(trace: TraceMeasures, state: str) -> float:
    """The largest effect of one kind of state, of whichever sign; 1 where there is none."""
    return max(abs(effect.value) for line in _lines(trace, state) for effect in line.effects) or 1.0


def title(trace: TraceMeasures, state: str) -> str:
    """What is put back, and how strong the darkest cell is: each map has its own scale."""
    many = f", {trace.window} neighbouring layers at a time" if state == "mlp" and trace.window > 1 else ""
    return (
        f"{STATES[state]}{many}: the darkest cell is {figures.points(darkest(trace, state)).removeprefix('+')} points"
    )


def trace_chart(trace: TraceMeasures, state: str, edited: Sequence[int], *, narrow: bool = False) -> Spec:
    """A cell for each layer and class of tokens, the stronger the more is given back, and the edited layers framed."""
    lines = _lines(trace, state)
    names = [_SHORT.get(line.tokens, line.tokens) if narrow else line.tokens for line in lines]
    depth = max(len(line.effects) for line in lines)
    row = _NARROW_ROW if narrow else _ROW
    return {
        "description": chart_words(trace, state),
        "width": "container",
        "height": row * len(lines),
        "layer": [_cells(lines, names, depth, darkest(trace, state)), *_frames(edited, depth, row * len(lines))],
        "view": {"fill": "var(--panel)", "stroke": None},
        "config": look(),
    }


def _lines(trace: TraceMeasures, state: str) -> list[TraceLine]:
    return [line for line in trace.lines if line.state == state]


def _cells(lines: Sequence[TraceLine], names: Sequence[str], depth: int, top: float) -> Spec:
    values = [_cell(name, layer, effect) for line, name in zip(lines, names, strict=True)
              for layer, effect in enumerate(line.effects)]  # fmt: skip
    labels = {"title": None, "labelColor": INK, "labelFontSize": 13, "domain": False, "ticks": False, "grid": False}
    return {
        "data": {"values": values},
        "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
        "encoding": {
            "x": {**_layers(depth), "field": "left"},
            "x2": {"field": "right"},
            "y": {"field": "tokens", "type": "nominal", "sort": list(names), "axis": {**labels, "labelLimit": 200}},
            "color": {
                "field": "gain",
                "type": "nominal",
                "scale": {"domain": list(_GAINS), "range": [ACCENT, WORSE]},
                "legend": None,
            },
            # Strength by opacity: a colour of the page has no shades that could be computed.
            "opacity": {
                "field": "size",
                "type": "quantitative",
                "scale": {"domain": [0, 100 * top], "range": [0, 1]},
                "legend": None,
            },
            "tooltip": {"field": "figures", "type": "nominal"},
        },
    }


def _cell(tokens: str, layer: int, effect: Difference) -> Spec:
    return {
        "tokens": tokens,
        "left": layer - 0.5,
        "right": layer + 0.5,
        "size": 100 * abs(effect.value),
        "gain": _GAINS[effect.value < 0],
        "figures": f"layer {layer}, {tokens}: {figures.difference(effect)}",
    }


def _layers(depth: int) -> Spec:
    return {
        "type": "quantitative",
        "title": "Layer, from the input (0) to the output",
        "scale": {"domain": [-0.5, depth - 0.5], "nice": False, "zero": False},
        "axis": {"tickMinStep": 1, "format": "d", "grid": False, "domain": False, "labelColor": MUTED},
    }


def _frames(edited: Sequence[int], depth: int, height: int) -> list[Spec]:
    """A frame around each run of edited layers."""
    inside = [layer for layer in edited if layer < depth]
    values = [{"left": first - 0.5, "right": last + 0.5} for first, last in runs(inside)]
    if not values:
        return []
    return [
        {
            "data": {"values": values},
            "mark": {"type": "rect", "fillOpacity": 0, "stroke": INK, "strokeWidth": 2},
            "encoding": {
                "x": {**_layers(depth), "field": "left"},
                "x2": {"field": "right"},
                "y": {"value": 0},
                "y2": {"value": height},
            },
        }
    ]
