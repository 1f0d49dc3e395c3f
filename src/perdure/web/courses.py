"""The course of a long edit for reading: how far the weights moved, facts by age, and the strengths that were tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.course import Cohort, Course, Growth, TradeOff
from perdure.web import figures
from perdure.web.charts import ACCENT, INK, MUTED, SAME, Spec, look
from perdure.web.reported import told
from perdure.web.words import N_, _, counted

MEASURES = {
    "sigma_ratio": N_("largest singular value of the change / of the base"),
    "condition_ratio": N_("condition number / of the base"),
    "norm_ratio": N_("norm of the change / of the matrix"),
}
_HEIGHT = 170
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


@dataclass(frozen=True)
class CohortRow:
    """Facts of one age at one time, as text."""

    taught: str
    label: str
    before: str
    kept: str


@dataclass(frozen=True)
class StrengthRow:
    """One strength of the restraint, as text."""

    name: str
    kept: str
    divergence: str
    chosen: bool


def cohort_rows(cohorts: Sequence[Cohort]) -> list[CohortRow]:
    """Every cohort, in the order in which they were asked."""
    return [
        CohortRow(
            taught=figures.whole(cohort.taught),
            label=told(cohort.label),
            before="" if cohort.before is None else figures.share(cohort.before),
            kept=figures.share(cohort.kept),
        )
        for cohort in cohorts
    ]


def strength_rows(points: Sequence[TradeOff]) -> list[StrengthRow]:
    """Every strength that was tried, from none to the strongest."""
    return [
        StrengthRow(strength(point), figures.share(point.kept), figures.number(point.divergence), point.chosen)
        for point in points
    ]


def strength(point: TradeOff) -> str:
    """A strength in words, such as "from 0.5 σ*"."""
    ceiling = point.config.get("ceiling")
    return _("none") if ceiling is None else _("from {ceiling} σ*").format(ceiling=f"{float(ceiling):g}")


def summary(course: Course) -> str:
    """What became of the facts of earlier edits, in one sentence; empty where none were asked."""
    if not course.cohorts:
        return ""
    last = [cohort for cohort in course.cohorts if cohort.taught == course.cohorts[-1].taught]
    last = [cohort for cohort in last if (cohort.before is None) == (last[-1].before is None)]
    hits, n = sum(cohort.kept.hits for cohort in last), sum(cohort.kept.n for cohort in last)
    return counted(
        "Of {count} fact taught since the original model and still in force, {hits} are answered as taught.",
        "Of {count} facts taught since the original model and still in force, {hits} are answered as taught.",
        n,
        hits=figures.whole(hits),
    )


def is_sequence(course: Course) -> bool:
    """Whether the weights were looked at more than once: one batch makes no curve."""
    return len({growth.facts for growth in course.growth}) > 1


def growth_words(growth: Sequence[Growth], measure: str) -> str:
    """What a chart of growth shows, in words."""
    last = max(row.facts for row in growth)
    most = max((row for row in growth if row.facts == last), key=lambda row: getattr(row, measure))
    return counted(
        "{measure}, by number of facts: at most {value} after {count} fact ({matrix}).",
        "{measure}, by number of facts: at most {value} after {count} facts ({matrix}).",
        last,
        measure=_(MEASURES[measure]),
        value=figures.number(getattr(most, measure)),
        matrix=most.matrix,
    )


def growth_chart(growth: Sequence[Growth], measure: str, description: str) -> Spec:
    """One line a matrix: a measure of the change against the number of facts."""
    names = sorted({_short(row) for row in growth})
    rows = [{"facts": row.facts, "value": getattr(row, measure), "matrix": _short(row)} for row in growth]
    legend = {"symbolType": "stroke", "symbolStrokeColor": INK, "columns": 4}
    dash = {"domain": names, "range": [_DASHES[place % len(_DASHES)] for place in range(len(names))]}
    return {
        "description": description,
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": rows},
        "mark": {"type": "line", "point": {"size": 28, "filled": True}, "strokeWidth": 1.75, "color": ACCENT},
        "encoding": {
            "x": {
                "field": "facts",
                "type": "quantitative",
                "title": _("facts taught"),
                "axis": {"format": "d", "grid": False},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": None,
                "scale": {"zero": measure != "condition_ratio"},
            },
            "strokeDash": {"field": "matrix", "type": "nominal", "scale": dash, "legend": legend},
            "opacity": {"value": 0.9},
        },
        "config": look(),
    }


def _short(row: Growth) -> str:
    if row.layer is None:
        return row.matrix
    return _("layer {layer} {name}").format(layer=row.layer, name=row.matrix.split(".")[-2])


def trade_off_words(points: Sequence[TradeOff]) -> str:
    """What the curve shows, in words."""
    best = next((point for point in points if point.chosen), points[0])
    return _(
        "Chosen: {strength}, which keeps {kept} of the facts asked and moves the model by {moved} nats per token of "
        "text; without restraint it would be {kept_without} and {moved_without}."
    ).format(
        strength=strength(best),
        kept=figures.share(best.kept),
        moved=figures.number(best.divergence),
        kept_without=figures.share(points[0].kept),
        moved_without=figures.number(points[0].divergence),
    )


def trade_off_chart(points: Sequence[TradeOff], description: str) -> Spec:
    """Facts kept against what the model loses, a point a strength, joined from weak to strong."""
    chosen, tried = _("chosen"), _("tried")
    rows = [
        {
            "loss": point.divergence,
            "kept": 100 * point.kept.value,
            "low": 100 * point.kept.low,
            "high": 100 * point.kept.high,
            "name": strength(point),
            "order": order,
            "chosen": chosen if point.chosen else tried,
        }
        for order, point in enumerate(points)
    ]
    x: Spec = {
        "field": "loss",
        "type": "quantitative",
        "title": _("moved, in nats per token of text"),
        "scale": {"zero": False},
    }
    y: Spec = {"field": "kept", "type": "quantitative", "title": _("facts kept, in percent"), "scale": {"zero": False}}
    shape = {
        "field": "chosen",
        "type": "nominal",
        "scale": {"domain": [chosen, tried], "range": ["diamond", "circle"]},
    }
    colour = {"field": "chosen", "type": "nominal", "scale": {"domain": [chosen, tried], "range": [ACCENT, SAME]}}
    legend = {"legend": {"symbolStrokeWidth": 0}}
    return {
        "description": description,
        "width": "container",
        "height": 240,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "line", "color": MUTED, "strokeWidth": 1},
                "encoding": {"x": x, "y": y, "order": {"field": "order"}},
            },
            {
                "mark": {"type": "rule", "color": MUTED},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 130, "opacity": 1},
                "encoding": {"x": x, "y": y, "shape": {**shape, **legend}, "color": {**colour, **legend}},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 9, "dy": -9, "fontSize": 12, "color": INK},
                "encoding": {"x": x, "y": y, "text": {"field": "name"}},
            },
        ],
        "config": look(),
    }
