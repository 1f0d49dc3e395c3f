"""How far each stage of an encoder moved, as a Vega-Lite specification and in words."""

from collections.abc import Mapping, Sequence

from perdure.web import figures
from perdure.web.charts import ACCENT, INK, SAME, Spec, look
from perdure.web.concepts import SetRow
from perdure.web.visible import one_line, squeeze, visible
from perdure.web.words import _, joined, listed

LINES = 6
_DASHES: tuple[list[int], ...] = ([], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4])
_HEIGHT = 200


def drift_sides(rows: Sequence[SetRow]) -> Mapping[str, Sequence[SetRow]]:
    """The sets whose drift is known, by side: the stages of a tower for images are not those of one for texts."""
    found: dict[str, list[SetRow]] = {}
    for row in rows:
        if row.found.drift:
            found.setdefault(row.found.side, []).append(row)
    return {side: each[:LINES] for side, each in found.items()}


def stage_labels(names: Sequence[str]) -> list[str]:
    """Stages by the last part of their names, such as "11", where that tells them apart."""
    last = [name.rpartition(".")[2] for name in names]
    return last if len(set(last)) == len(last) else [squeeze(one_line(visible(name)), 16) for name in names]


def drift_words(rows: Sequence[SetRow]) -> str:
    """The curves in words."""
    parts = []
    for row in rows:
        far = max(row.found.drift, key=lambda stage: stage.distance.value)
        parts.append(
            _("{set}: most in {stage}, {distance}").format(
                set=row.name, stage=one_line(visible(far.stage)), distance=figures.number(far.distance.value)
            )
        )
    return _(
        "Distance of the features of each stage from the original's, 0 for equal, 2 for unrelated. {each}."
    ).format(each=joined(parts))


def drift_chart(rows: Sequence[SetRow], *, narrow: bool = False) -> Spec:
    """A line for each set over the stages in order of depth, with 95% intervals; a set that was tuned on stands out."""
    labels = stage_labels([stage.stage for stage in rows[0].found.drift])
    values = [
        {"set": row.name, "stage": label, "tuned": row.found.tuned, "value": stage.distance.value,
         "low": stage.distance.low, "high": stage.distance.high,
         "figures": f"{listed((row.name, one_line(visible(stage.stage))))}: {figures.number(stage.distance.value)}"}
        for row in rows for label, stage in zip(labels, row.found.drift, strict=True)
    ]  # fmt: skip
    names = [row.name for row in rows]
    legend = {"symbolType": "stroke", "symbolStrokeColor": INK, "columns": 1 if narrow else 3, "labelLimit": 260}
    dash = {"field": "set", "type": "nominal", "legend": legend if len(rows) > 1 else None,
            "scale": {"domain": names, "range": list(_DASHES[: len(names)])}}  # fmt: skip
    colour = {"condition": {"test": "datum.tuned", "value": ACCENT}, "value": SAME}
    common: Spec = {
        "x": {"field": "stage", "type": "ordinal", "sort": labels,
              "axis": {"title": _("stage, in order of depth"), "labelAngle": 0, "labelOverlap": True}},
        "y": {"field": "value", "type": "quantitative", "title": _("distance"), "scale": {"zero": True},
              "axis": {"tickCount": 5}},
        "color": colour,
        "detail": {"field": "set"},
        "tooltip": {"field": "figures", "type": "nominal"},
    }  # fmt: skip
    reach = {**common, "y": {**common["y"], "field": "low"}, "y2": {"field": "high"}}
    return {
        "description": drift_words(rows),
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": values},
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": reach},
            {"mark": {"type": "line", "strokeWidth": 1.75}, "encoding": {**common, "strokeDash": dash}},
            {"mark": {"type": "point", "size": 40, "filled": True}, "encoding": common},
        ],
        "config": look(),
    }
