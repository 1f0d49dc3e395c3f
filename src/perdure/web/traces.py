"""The heat-maps of a causal trace as Vega-Lite specifications, and what they say in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from perdure.measuring.shares import Difference
from perdure.measuring.traced import TraceLine, TraceMeasures
from perdure.web import figures
from perdure.web.charts import ACCENT, INK, MUTED, WORSE, Spec, look
from perdure.web.reported import told
from perdure.web.words import N_, _, counted, in_turn, joined, listed

STATES = {"mlp": N_("MLPs"), "hidden": N_("Hidden states")}
CARRIER = ("mlp", "last subject token")  # what editors write: the MLP, there
_ROW, _NARROW_ROW = 30, 26
_GAINS = ("given back", "taken away")
_SHORT = {
    "first subject token": N_("subject, first"),
    "middle subject tokens": N_("subject, middle"),
    "last subject token": N_("subject, last"),
    "first token after": N_("after it, first"),
    "further tokens": N_("after it, further"),
    "last token": N_("last of all"),
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
    found = [[layer for _place, layer in group] for _gap, group in groups]
    return [(group[0], group[-1]) for group in found]


def layer_names(layers: Sequence[int]) -> str:
    """Layers as text, such as "4 to 7 and 9"."""
    parts = [
        str(first) if first == last else _("{low} to {high}").format(low=first, high=last)
        for first, last in runs(layers)
    ]
    return _(" and ").join([listed(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


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
    asked = counted(
        "To see where the original model keeps such knowledge, {count} fact that it knows was asked with the subject's "
        "words blurred by noise, which costs the answer {lost}, and then with single parts of the model put back as "
        "they were.",
        "To see where the original model keeps such knowledge, {count} facts that it knows were asked with the "
        "subject's words blurred by noise, which costs the answer {lost}, and then with single parts of the model put "
        "back as they were.",
        trace.facts,
        lost=_amount(trace.lost.value),
    )
    if line is None or trace.layer is None:
        return in_turn(asked, _("No layer alone gives any of it back."))
    layer, effect = strongest(line)
    found = _(
        "At the last word of the subject, most comes back around layer {layer}: {size} ({interval}; {n})."
    ).format(
        layer=layer,
        size=_amount(effect.value),
        interval=figures.difference_interval(effect),
        n=figures.sample(effect.n),
    )
    inside = [place for place in edited if place < len(line.effects)]
    return in_turn(asked, found, _edited(line, inside))


def _edited(line: TraceLine, edited: Sequence[int]) -> str:
    if not edited:
        return ""
    mean = _amount(mean_over(line, edited))
    if len(edited) == 1:
        return _("This update changed layer {layer}, where it is {size}.").format(layer=edited[0], size=mean)
    said = _("This update changed layers {layers}, where it is {size} on average.")
    return said.format(layers=layer_names(edited), size=mean)


def _amount(value: float) -> str:
    return _("{size} of its probability").format(size=figures.size_in_points(value))


def chart_words(trace: TraceMeasures, state: str) -> str:
    """One heat-map in words: for each class of tokens the layer that gives back most."""
    parts = []
    for line in _lines(trace, state):
        layer, effect = strongest(line)
        parts.append(
            _("{tokens}: at most {size}, layer {layer}").format(
                tokens=told(line.tokens), size=figures.in_points(effect.value), layer=layer
            )
        )
    said = _("{states} put back, by layer and token. {each}.")
    return said.format(states=state_name(state), each=joined(parts))


def state_name(state: str) -> str:
    """What is put back, in words."""
    return _(STATES[state]) if state in STATES else state


def rows(trace: TraceMeasures) -> dict[str, list[TraceRow]]:
    """From each kind of state, in words, to a row for each class of tokens."""
    found: dict[str, list[TraceRow]] = {}
    for line in trace.lines:
        found.setdefault(state_name(line.state), []).append(TraceRow(line, *strongest(line)))
    return found


def darkest(trace: TraceMeasures, state: str) -> float:
    """The largest effect of one kind of state, of whichever sign; 1 where there is none."""
    return max(abs(effect.value) for line in _lines(trace, state) for effect in line.effects) or 1.0


def title(trace: TraceMeasures, state: str) -> str:
    """What is put back, and how strong the darkest cell is: each map has its own scale."""
    size = figures.size_in_points(darkest(trace, state))
    if state == "mlp" and trace.window > 1:
        said = _("{states}, {window} neighbouring layers at a time: the darkest cell is {size}")
        return said.format(states=state_name(state), window=trace.window, size=size)
    return _("{states}: the darkest cell is {size}").format(states=state_name(state), size=size)


def trace_chart(trace: TraceMeasures, state: str, edited: Sequence[int], *, narrow: bool = False) -> Spec:
    """A cell for each layer and class of tokens, the stronger the more is given back, and the edited layers framed."""
    lines = _lines(trace, state)
    names = [_short(line.tokens) if narrow else told(line.tokens) for line in lines]
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


def _short(tokens: str) -> str:
    return _(_SHORT[tokens]) if tokens in _SHORT else tokens


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
        "figures": _("layer {layer}, {tokens}: {difference}").format(
            layer=layer, tokens=tokens, difference=figures.difference(effect)
        ),
    }


def _layers(depth: int) -> Spec:
    return {
        "type": "quantitative",
        "title": _("Layer, from the input (0) to the output"),
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
