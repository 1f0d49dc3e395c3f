"""The report's charts as Vega-Lite specifications: plain data in, a dictionary out.

Colours are the page's own CSS variables, so that a chart follows light, dark and print without being drawn again.
No specification names a URL: data and mode travel with it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from perdure.measuring.report import Comparison, Difference, MatrixMeasures, Share
from perdure.web import figures
from perdure.web.visible import clip, one_line, visible

Spec = dict[str, Any]

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--line)"
WORSE, BETTER, SAME, FAINT = "var(--fail)", "var(--pass)", "var(--neutral)", "var(--faint)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TRENDS = ("worse", "no clear change", "better")
AGAINST = ("the version before", "the original model")
_LABEL_LIMIT = 60
# Below this share of the largest, a singular value is rounding noise of a change of lower rank.
_NOISE = 1e-5


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


def _config() -> Spec:
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


def _labels(comparisons: Sequence[Comparison]) -> list[str]:
    """Short labels, each different from the others: two rows of one name would fall into one."""
    short = [clip(one_line(visible(comparison.label)), _LABEL_LIMIT) for comparison in comparisons]
    often = Counter(short)
    return [
        text if often[text] == 1 else f"{text} ({one_line(visible(given.name))})"
        for text, given in zip(short, comparisons, strict=True)
    ]


def _rows_axis(*, narrow: bool) -> Spec | None:
    if narrow:
        return None
    return {
        "title": None,
        "labelLimit": 250,
        "labelColor": INK,
        "labelFontSize": 13,
        "domain": False,
        "ticks": False,
        "grid": False,
    }


def _rows(labels: Sequence[str], *, narrow: bool) -> Spec:
    """One row a label, in the given order; on a narrow screen the label stands above its marks."""
    return {"field": "label", "type": "nominal", "sort": list(labels), "axis": _rows_axis(narrow=narrow)}


def _label_layer(labels: Sequence[str]) -> Spec:
    return {
        "data": {"values": [{"label": label} for label in labels]},
        "mark": {"type": "text", "align": "left", "baseline": "bottom", "dy": -9, "fontSize": 13, "color": INK},
        "encoding": {"y": _rows(labels, narrow=True), "x": {"value": 0}, "text": {"field": "label"}},
    }


def _framed(layers: list[Spec], description: str, step: int) -> Spec:
    return {
        "description": description,
        "width": "container",
        "height": {"step": step},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "layer": layers,
        "config": _config(),
    }


def _domain(values: Sequence[float], least: float) -> list[float]:
    """A domain around zero that holds the values and is never narrower than ±least."""
    return [min([-least, *values]) * 1.05, max([least, *values]) * 1.05]


def _change_row(label: str, against: str, comparison: Comparison, difference: Difference) -> Spec:
    return {
        "label": label,
        "against": against,
        "value": 100 * difference.value,
        "low": 100 * difference.low,
        "high": 100 * difference.high,
        "trend": trend(comparison, difference),
        "figures": f"{figures.difference(difference)} against {against}",
    }


def _change_rows(comparisons: Sequence[Comparison], labels: Sequence[str]) -> list[Spec]:
    rows = []
    for label, comparison in zip(labels, comparisons, strict=True):
        pairs = zip(AGAINST, (comparison.difference, comparison.against_base), strict=True)
        rows += [_change_row(label, against, comparison, found) for against, found in pairs if found is not None]
    return [row for row in rows if all(math.isfinite(row[key]) for key in ("value", "low", "high"))]


def changes_chart(comparisons: Sequence[Comparison], description: str, *, narrow: bool = False) -> Spec:
    """A dot with its 95% interval for each comparison, largest loss on top, and the line of no change.

    Where the comparisons also stand against the base, a second, lighter dot shows it.
    """
    ordered = worst_first(comparisons)
    labels = _labels(ordered)
    rows = _change_rows(ordered, labels)
    twice = any(row["against"] == AGAINST[1] for row in rows)
    x: Spec = {
        "type": "quantitative",
        "title": "Change in percentage points: left is lower than before, right is higher",
        "scale": {"domain": _domain([row[key] for row in rows for key in ("low", "high")], 1.0), "nice": True},
        "axis": {"format": "+~f", "tickCount": 5 if narrow else 8},
    }
    if narrow:
        x["title"] = "Change in percentage points"
    colour = {
        "field": "trend",
        "type": "nominal",
        "scale": {"domain": list(TRENDS), "range": [WORSE, SAME, BETTER]},
        "legend": None,
    }
    common: Spec = {"y": _rows(labels, narrow=narrow), "color": colour, "tooltip": {"field": "figures", "type": "nominal"}}
    if twice:
        common["yOffset"] = {"field": "against", "type": "nominal", "sort": list(AGAINST)}
        common["opacity"] = {
            "field": "against",
            "type": "nominal",
            "scale": {"domain": list(AGAINST), "range": [1, 0.55]},
            "legend": {"title": "Compared with", "symbolFillColor": INK, "symbolStrokeColor": INK},
        }
    shape = {"field": "trend", "type": "nominal", "scale": {"domain": list(TRENDS), "range": _TREND_SHAPES}}
    layers: list[Spec] = [
        {"data": {"values": [{}]}, "mark": {"type": "rule", "color": INK, "strokeWidth": 1.25}, "encoding": {"x": {"datum": 0}}},
        {
            "data": {"values": rows},
            "mark": {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"},
            "encoding": {**common, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
            "encoding": {**common, "x": {**x, "field": "value"}, "shape": {**shape, "legend": None}},
        },
    ]
    if narrow:
        layers.append(_label_layer(labels))
    return _framed(layers, description, (44 if narrow else 26) if not twice else (48 if narrow else 32))


_TREND_SHAPES = ["triangle-left", "circle", "triangle-right"]


def _share_row(label: str, moment: str, given: Share) -> Spec:
    return {
        "label": label,
        "moment": moment,
        "value": 100 * given.value,
        "low": 100 * given.low,
        "high": 100 * given.high,
        "figures": f"{moment}: {figures.share(given)}",
    }


def shares_chart(comparisons: Sequence[Comparison], description: str, *, narrow: bool = False) -> Spec:
    """The share before (open square) and after (full circle) of each comparison, with 95% intervals."""
    labels = _labels(comparisons)
    rows = []
    for label, comparison in zip(labels, comparisons, strict=True):
        rows += [_share_row(label, "before", comparison.before), _share_row(label, "after", comparison.after)]
    moments = ["before", "after"]
    common: Spec = {
        "y": _rows(labels, narrow=narrow),
        "yOffset": {"field": "moment", "type": "nominal", "sort": moments},
        "color": {
            "field": "moment",
            "type": "nominal",
            "scale": {"domain": moments, "range": [SAME, "var(--accent)"]},
            "legend": {"symbolType": "circle", "symbolStrokeWidth": 0, "symbolSize": 90},
        },
        "tooltip": {"field": "figures", "type": "nominal"},
    }
    x: Spec = {
        "type": "quantitative",
        "title": "Share of answers, in percent",
        "scale": {"domain": [0, 100]},
        "axis": {"tickCount": 5},
    }
    shape = {
        "field": "moment",
        "type": "nominal",
        "scale": {"domain": moments, "range": ["square", "circle"]},
        "legend": None,
    }
    layers: list[Spec] = [
        {
            "data": {"values": rows},
            "mark": {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"},
            "encoding": {**common, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {**common, "x": {**x, "field": "value"}, "shape": shape},
        },
    ]
    if narrow:
        layers.append(_label_layer(labels))
    return _framed(layers, description, 50 if narrow else 40)


def _spectrum_rows(matrix: MatrixMeasures) -> list[Spec]:
    series = (("before the restraint", matrix.singular_values_solved), ("as applied", matrix.singular_values))
    rows = []
    for name, values in series:
        floor = _NOISE * max(values, default=0.0)
        rows += [
            {"rank": rank, "value": value, "series": name, "figures": f"{name}, no. {rank}: {figures.number(value)}"}
            for rank, value in enumerate(values, 1)
            if math.isfinite(value) and value > floor
        ]
    return rows


def spectrum_domain(matrices: Sequence[MatrixMeasures]) -> list[float]:
    """The values that every spectrum must have room for, [low, high], so that the small charts compare."""
    shown = [row["value"] for matrix in matrices for row in _spectrum_rows(matrix)]
    shown += [matrix.sigma_max_base for matrix in matrices if _drawable(matrix.sigma_max_base)]
    if not shown:
        return [0.1, 1.0]
    return [min(shown) / 1.3, max(shown) * 1.8]


def _drawable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def spectrum_chart(matrix: MatrixMeasures, domain: Sequence[float], description: str) -> Spec:
    """The singular values of one change, before and after the restraint, under the line of the base's largest."""
    x = {
        "field": "rank",
        "type": "quantitative",
        "title": "singular values, largest first",
        "scale": {"nice": False, "zero": False, "padding": 10},
        "axis": {"tickMinStep": 1, "format": "d", "grid": False, "tickCount": 5},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": {"type": "log", "domain": list(domain), "nice": False},
        "axis": {"tickCount": 4, "format": "~g"},
    }
    series = ["before the restraint", "as applied"]
    encoding: Spec = {
        "x": x,
        "y": y,
        "color": {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": series, "range": [SAME, "var(--accent)"]},
            "legend": None,
        },
        "tooltip": {"field": "figures", "type": "nominal"},
    }
    shape = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": series, "range": ["square", "circle"]},
        "legend": None,
    }
    points: Spec = {"mark": {"type": "point", "size": 42, "strokeWidth": 1.5}, "encoding": {**encoding, "shape": shape}}
    layers: list[Spec] = [
        {"mark": {"type": "line", "strokeWidth": 1.25, "opacity": 0.6}, "encoding": encoding},
        {**points, "transform": [{"filter": {"field": "series", "equal": series[0]}}]},
        {
            "mark": {**points["mark"], "filled": True, "opacity": 1},
            "encoding": points["encoding"],
            "transform": [{"filter": {"field": "series", "equal": series[1]}}],
        },
    ]
    if _drawable(matrix.sigma_max_base):
        layers.append(
            {
                "data": {"values": [{"value": matrix.sigma_max_base}]},
                "mark": {"type": "rule", "color": WORSE, "strokeDash": [6, 4], "strokeWidth": 1.75},
                "encoding": {"y": y},
            }
        )
    return {
        "description": description,
        "width": "container",
        "height": 170,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": _spectrum_rows(matrix)},
        "layer": layers,
        "config": _config(),
    }
