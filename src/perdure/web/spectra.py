"""The small charts of singular values, one a matrix, as Vega-Lite specifications."""

import math
from collections.abc import Sequence

from perdure.measuring.report import MatrixMeasures
from perdure.web import figures
from perdure.web.charts import ACCENT, SAME, WORSE, Spec, colours, look
from perdure.web.words import N_, _

SERIES = (N_("before the restraint"), N_("as applied"))
_HEIGHT = 160


def _rows(matrix: MatrixMeasures) -> list[Spec]:
    series = zip(SERIES, (matrix.singular_values_solved, matrix.singular_values), strict=True)
    return [
        {"rank": rank, "value": value, "series": name, "figures": _pointed(rank, name, value)}
        for name, values in series
        for rank, value in enumerate(values, 1)
        if math.isfinite(value)
    ]


def _pointed(rank: int, name: str, value: float) -> str:
    said = _("no. {rank}, {series}: {value}")
    return said.format(rank=rank, series=_(name), value=figures.number(value))


def common_scale(matrices: Sequence[MatrixMeasures]) -> list[float]:
    """What every chart must have room for, [0, highest], so that the charts compare."""
    shown = [row["value"] for matrix in matrices for row in _rows(matrix)]
    shown += [matrix.sigma_max_base for matrix in matrices if math.isfinite(matrix.sigma_max_base)]
    return [0.0, max(shown, default=0.0) * 1.08 or 1.0]


def _series(name: str, mark: Spec, encoding: Spec) -> Spec:
    return {"transform": [{"filter": {"field": "series", "equal": name}}], "mark": mark, "encoding": encoding}


def spectrum_chart(matrix: MatrixMeasures, scale: Sequence[float], description: str) -> Spec:
    """Singular values of one change: rings before the restraint, dots as applied, under the base's largest."""
    y: Spec = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": list(scale), "nice": False},
        "axis": {"tickCount": 4, "format": "~g"},
    }
    encoding: Spec = {
        "x": {
            "field": "rank",
            "type": "quantitative",
            "title": _("singular values, largest first"),
            "scale": {"nice": False, "zero": False, "padding": 12},
            "axis": {"tickMinStep": 1, "format": "d", "grid": False, "tickCount": 5},
        },
        "y": y,
        "color": colours("series", SERIES, (SAME, ACCENT)),
        "tooltip": {"field": "figures", "type": "nominal"},
    }
    layers = [
        _series(SERIES[1], {"type": "line", "strokeWidth": 1.25, "opacity": 0.6}, encoding),
        _series(SERIES[0], {"type": "point", "size": 95, "strokeWidth": 1.5, "opacity": 1}, encoding),
        _series(SERIES[1], {"type": "point", "filled": True, "size": 36, "opacity": 1}, encoding),
    ]
    if math.isfinite(matrix.sigma_max_base):
        line = {"type": "rule", "color": WORSE, "strokeDash": [6, 4], "strokeWidth": 1.75}
        ceiling = {"data": {"values": [{"value": matrix.sigma_max_base}]}, "mark": line, "encoding": {"y": y}}
        layers.append(ceiling)
    return {
        "description": description,
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": _rows(matrix)},
        "layer": layers,
        "config": look(),
    }
