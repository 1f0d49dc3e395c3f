"""The report's charts of comparisons as Vega-Lite specifications: plain data in, a dictionary out.

Colours are the page's own CSS variables, so that a chart follows light, dark and print without being drawn again.
No specification names a URL: data and mode travel with it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.report import Comparison, Difference, Share
from perdure.web import figures
from perdure.web.reported import told
from perdure.web.visible import capital, columns, one_line, squeeze, visible
from perdure.web.words import N_, _, listed

Spec = dict[str, Any]

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--line)"
WORSE, BETTER, SAME, ACCENT = "var(--fail)", "var(--pass)", "var(--neutral)", "var(--accent)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TRENDS = ("worse", "no clear change", "better")
AGAINST = (N_("the version before"), N_("the original model"))
MOMENTS = (N_("before"), N_("after"))
_SIGNED = "datum.value === 0 ? '0' : format(datum.value, '+~f')"
_LABEL_LIMIT, _NARROW_LIMIT = 80, 42
# Longer labels than this take too much of the width to stand beside their rows.
_BESIDE = 38
_ROOM_FOR_LABEL = 22


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its specification, one for narrow screens, and what it says in words."""

    key: str
    label: str
    says: str
    spec: Spec
    narrow: Spec | None = None


def trend(comparison: Comparison, difference: Difference) -> str:
    """One of TRENDS: clear only where the whole interval lies on one side of zero."""
    sign = 1 if comparison.higher_is_better else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    if high < 0:
        return TRENDS[0]
    return TRENDS[2] if low > 0 else TRENDS[1]


def worst_first(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons, largest loss first."""

    def gain(comparison: Comparison) -> float:
        value = comparison.difference.value if comparison.higher_is_better else -comparison.difference.value
        return value if math.isfinite(value) else 0.0

    return sorted(comparisons, key=lambda comparison: (gain(comparison), comparison.label, comparison.name))


def look() -> Spec:
    """The configuration that all charts share: the page's font and colours, no frame, no background."""
    axis = {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 6,
    }
    legend = {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "orient": "top", "title": None}
    return {"font": FONT, "view": {"stroke": None}, "axis": axis, "legend": legend, "background": None}


def colours(field: str, values: Sequence[str], colour: Sequence[str], legend: Spec | None = None) -> Spec:
    """The colour channel of a field with few values."""
    scale = {"domain": list(values), "range": list(colour)}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _labels(comparisons: Sequence[Comparison], *, narrow: bool) -> list[str]:
    """Short labels, each different from the others: two rows of one name would fall into one."""
    limit = _NARROW_LIMIT if narrow else _LABEL_LIMIT
    whole = [capital(one_line(visible(told(comparison.label)))) for comparison in comparisons]
    short = [squeeze(text, limit * len(text) // max(1, columns(text))) for text in whole]
    often = Counter(short)
    return [text if often[text] == 1 else f"{text} ({place})" for place, text in enumerate(short, 1)]


def _too_long(labels: Sequence[str]) -> bool:
    return max(map(columns, labels), default=0) > _BESIDE


def _rows(labels: Sequence[str], *, narrow: bool) -> Spec:
    """One row a label, in the given order; where it is narrow the label stands above its marks instead."""
    axis = {
        "title": None,
        "labelLimit": 250,
        "labelColor": INK,
        "labelFontSize": 13,
        "domain": False,
        "ticks": False,
        "grid": False,
    }
    scale = {"paddingInner": 0.35, "paddingOuter": 0.3}
    encoding = {"field": "label", "type": "nominal", "sort": list(labels), "scale": scale}
    return {**encoding, "axis": None if narrow else axis}


def _written_above(labels: Sequence[str], step: int) -> Spec:
    """The labels as text at the upper edge of their rows, `step` pixels apart."""
    return {
        "data": {"values": [{"label": label} for label in labels]},
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "middle",
            "dy": 8 - step // 2,
            "fontSize": 13,
            "color": INK,
        },
        "encoding": {"y": _rows(labels, narrow=True), "x": {"value": 0}, "text": {"field": "label"}},
    }


def _dots_and_intervals(rows: list[Spec], x: Spec, common: Spec, shape: Spec) -> list[Spec]:
    """A line from `low` to `high` and a dot at `value` for each row."""
    line = {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"}
    dot = {"type": "point", "filled": True, "size": 95, "opacity": 1}
    return [
        {
            "data": {"values": rows},
            "mark": line,
            "encoding": {**common, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {"data": {"values": rows}, "mark": dot, "encoding": {**common, "x": {**x, "field": "value"}, "shape": shape}},
    ]


def _framed(layers: list[Spec], labels: Sequence[str], description: str, *, step: int, narrow: bool) -> Spec:
    if narrow:
        step += _ROOM_FOR_LABEL
        layers = [*layers, _written_above(labels, step)]
    return {
        "description": description,
        "width": "container",
        "height": {"step": step, "for": "position"},
        "layer": layers,
        "config": look(),
    }


def _interval(value: float, low: float, high: float) -> Spec:
    """The three positions in percent or percentage points."""
    return {"value": 100 * value, "low": 100 * low, "high": 100 * high}


def _drawable(row: Spec) -> bool:
    return all(math.isfinite(row[key]) for key in ("value", "low", "high"))


def _change_rows(comparisons: Sequence[Comparison], labels: Sequence[str]) -> list[Spec]:
    """A row for each difference: against the version before, and against the base where that is known."""
    rows = []
    for label, comparison in zip(labels, comparisons, strict=True):
        for against, change in zip(AGAINST, (comparison.difference, comparison.against_base), strict=True):
            if change is not None:
                row = {"label": label, "against": _(against), "trend": trend(comparison, change)}
                row["figures"] = _("{measure}: {difference} against {other}").format(
                    measure=label, difference=figures.difference(change), other=_(against)
                )
                rows.append(row | _interval(change.value, change.low, change.high))
    return [row for row in rows if _drawable(row)]


def _change_axis(rows: Sequence[Spec], *, narrow: bool) -> Spec:
    ends = [row[key] for row in rows for key in ("low", "high")]
    wide = _("Change in percentage points: left is lower than before, right is higher")
    return {
        "type": "quantitative",
        "title": _("Change in percentage points") if narrow else wide,
        "scale": {"domain": [min([-1.0, *ends]) * 1.05, max([1.0, *ends]) * 1.05], "nice": True},
        "axis": {"labelExpr": _SIGNED, "tickCount": 5 if narrow else 8},
    }


def _two_lanes() -> Spec:
    """Channels that set the comparison with the base beside the one with the version before."""
    legend = {"symbolFillColor": INK, "symbolStrokeWidth": 0, "symbolType": "circle"}
    against = [_(text) for text in AGAINST]
    lanes = {"field": "against", "type": "nominal", "sort": against}
    scale = {"domain": against, "range": [1, 0.5]}
    # Ordinal, since Vega-Lite gives opacity to ordered values only.
    return {"yOffset": lanes, "opacity": {"field": "against", "type": "ordinal", "scale": scale, "legend": legend}}


def changes_chart(comparisons: Sequence[Comparison], description: str, *, narrow: bool = False) -> Spec:
    """A dot with its 95% interval for each comparison, from top to bottom as given, and the line of no change.

    Where comparisons also stand against the base, a second, lighter dot shows it.
    """
    labels = _labels(comparisons, narrow=narrow)
    narrow = narrow or _too_long(labels)
    rows = _change_rows(comparisons, labels)
    twice = any(row["against"] == _(AGAINST[1]) for row in rows)
    common: Spec = {
        "y": _rows(labels, narrow=narrow),
        "color": colours("trend", TRENDS, (WORSE, SAME, BETTER)),
        "tooltip": {"field": "figures", "type": "nominal"},
    }
    if twice:
        common |= _two_lanes()
    shape = colours("trend", TRENDS, ("triangle-left", "circle", "triangle-right"))
    x = _change_axis(rows, narrow=narrow)
    zero = {
        "data": {"values": [{"zero": 0}]},
        "mark": {"type": "rule", "color": INK, "strokeWidth": 1.25},
        "encoding": {"x": {**x, "field": "zero"}},
    }
    layers = [zero, *_dots_and_intervals(rows, x, common, shape)]
    return _framed(layers, labels, description, step=38 if twice else 26, narrow=narrow)


def _share_rows(comparisons: Sequence[Comparison], labels: Sequence[str]) -> list[Spec]:
    rows = []
    for label, comparison in zip(labels, comparisons, strict=True):
        for moment, given in zip(MOMENTS, (comparison.before, comparison.after), strict=True):
            rows.append(_share_row(label, _(moment), given))
    return [row for row in rows if _drawable(row)]


def _share_row(label: str, moment: str, given: Share) -> Spec:
    row = {"label": label, "moment": moment, "figures": f"{listed((label, moment))}: {figures.share(given)}"}
    return row | _interval(given.value, given.low, given.high)


def shares_chart(
    comparisons: Sequence[Comparison],
    description: str,
    *,
    narrow: bool = False,
    title: str = "",
) -> Spec:
    """The share before (square) and after (circle) of each comparison, with 95% intervals."""
    labels = _labels(comparisons, narrow=narrow)
    narrow = narrow or _too_long(labels)
    legend = {"symbolType": "circle", "symbolStrokeWidth": 0, "symbolSize": 90}
    moments = [_(moment) for moment in MOMENTS]
    common: Spec = {
        "y": _rows(labels, narrow=narrow),
        "yOffset": {"field": "moment", "type": "nominal", "sort": moments},
        "color": colours("moment", moments, (SAME, ACCENT), legend),
        "tooltip": {"field": "figures", "type": "nominal"},
    }
    x: Spec = {
        "type": "quantitative",
        "title": title or _("Share of answers, in percent"),
        "scale": {"domain": [0, 100]},
        "axis": {"tickCount": 5},
    }
    # With the legend of the colours the shapes join in: one legend shows both.
    shape = colours("moment", moments, ("square", "circle"), {**legend, "symbolType": None})
    layers = _dots_and_intervals(_share_rows(comparisons, labels), x, common, shape)
    return _framed(layers, labels, description, step=44, narrow=narrow)
