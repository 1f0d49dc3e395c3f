"""The angles between old and new updates of neurons, as Vega-Lite specifications and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.measuring.neurons import CASES, CONFLICT, KEPT, MERGED, SKIPPED, NeuronGroup, NeuronMeasures
from perdure.web import figures
from perdure.web.charts import ACCENT, INK, SAME, WORSE, Spec, colours, look
from perdure.web.words import N_, _, counted, in_turn, listed

NAMES: Mapping[str, str] = {
    MERGED: N_("acute: left alone"),
    KEPT: N_("orthogonal: left alone"),
    CONFLICT: N_("obtuse: old forgotten, new learnt"),
    SKIPPED: N_("hardly moved: left alone"),
}
LIST_LIMIT = 400
"""More numbers of neurons than a person reads; the report's data holds all."""
CASE_NAMES: Mapping[str, str] = {
    MERGED: N_("acute"),
    KEPT: N_("orthogonal"),
    CONFLICT: N_("obtuse"),
    SKIPPED: N_("skipped"),
}
_SHADES = {MERGED: ACCENT, KEPT: SAME, CONFLICT: WORSE, SKIPPED: "var(--line)"}
_HEIGHT, _ROW = 220, 14
_DEGREES = "datum.value + '°'"


@dataclass(frozen=True)
class NeuronRow:
    """One group of neurons: its name, how many are of each case, and the numbers of those that moved."""

    name: str
    group: NeuronGroup
    counts: Sequence[int]
    moved: Sequence[tuple[str, str]]


def names(given: NeuronMeasures) -> Mapping[str, str]:
    """What each case is called, with what was done about it."""
    known = {**NAMES, MERGED: N_("acute: merged")} if given.merges else NAMES
    return {case: _(name) for case, name in known.items()}


def rows(given: NeuronMeasures) -> list[NeuronRow]:
    """Every group, in order; batches are named where there are several."""
    several = len({group.batch for group in given.groups}) > 1
    return [_row(group, several=several) for group in given.groups]


def _row(group: NeuronGroup, *, several: bool) -> NeuronRow:
    name = group.matrix or _("layer {layer}").format(layer=group.layer)
    moving = (MERGED, CONFLICT) if group.merges else (CONFLICT,)
    moved = [(_(CASE_NAMES[case]), group.cases[case].replace(",", ", ")) for case in moving if group.cases.get(case)]
    counts = [group.count(case) for case in CASES]
    if several:
        name = _("batch {batch}, {name}").format(batch=group.batch, name=name)
    return NeuronRow(name, group, counts, moved)


def summary(given: NeuronMeasures) -> str:
    """What became of the neurons, in plain words."""
    total = sum(given.count(case) for case in CASES)
    merged, conflict = given.count(MERGED) if given.merges else 0, given.count(CONFLICT)
    values = {
        "neurons": counted("{count} neuron", "{count} neurons", total),
        "conflict": _part(conflict, total),
        "merged": _part(merged, total),
        "kept": _part(total - merged - conflict, total),
    }
    if given.merges:
        said = _(
            "Of {neurons}, {conflict} are where the old and the new answers are in conflict: there the old was "
            "forgotten before the new was learnt; {merged} were merged, because both pull them the same way; {kept} "
            "stay as they were, bit for bit."
        )
    else:
        said = _(
            "Of {neurons}, {conflict} are where the old and the new answers are in conflict: there the old was "
            "forgotten before the new was learnt; {kept} stay as they were, bit for bit."
        )
    return said.format(**values)


def _part(count: int, total: int) -> str:
    share = figures.percent(count / total, total)
    return _("{count} ({share})").format(count=figures.whole(count), share=share)


def angles_chart(given: NeuronMeasures) -> Spec:
    """A histogram of the angles over all layers, each bar divided by what was done with its neurons."""
    cases = [case for case in CASES if given.count(case)]
    called = names(given)
    rows = [row for case in cases for row in _bars(given.histogram(case), case, called[case])]
    legend = {"symbolType": "square", "symbolSize": 110, "symbolStrokeWidth": 0, "columns": 1, "labelLimit": 400}
    return {
        "description": words(given),
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "bar", "binSpacing": 1},
                "encoding": {
                    "x": {**_degrees(), "field": "from", "bin": {"binned": True}},
                    "x2": {"field": "to"},
                    "y": {
                        "field": "count",
                        "type": "quantitative",
                        "stack": "zero",
                        "title": _("Neurons"),
                        "axis": {"tickCount": 4, "format": "~s"},
                    },
                    "order": {"field": "order", "type": "quantitative"},
                    "color": colours(
                        "case", [called[case] for case in cases], [_SHADES[case] for case in cases], legend
                    ),
                    "tooltip": {"field": "figures", "type": "nominal"},
                },
            },
            _right_angle(),
        ],
        "config": look(),
    }


def words(given: NeuronMeasures) -> str:
    """The histogram in words."""
    found = [sum(bins) for bins in zip(*(_filled(given, case) for case in CASES), strict=True)]
    half, total, middle = 0, sum(found), 0
    for place, count in enumerate(found):
        half += count
        if 2 * half >= total:
            middle = place
            break
    step = 180 / len(found)
    low, high = (round(edge * step) for edge in (middle, middle + 1))
    said = counted(
        "Angles between the old and the new update of {count} neuron: the median lies at {low}–{high}°.",
        "Angles between the old and the new update of {count} neurons: the median lies at {low}–{high}°.",
        total,
        low=low,
        high=high,
    )
    return in_turn(said, summary(given))


def _filled(given: NeuronMeasures, case: str) -> list[int]:
    return given.histogram(case) or [0] * len(next(iter(given.groups[0].angles.values())))


def _bars(counts: Sequence[int], case: str, name: str) -> list[Spec]:
    step = 180 / len(counts)
    return [
        {
            "from": place * step,
            "to": (place + 1) * step,
            "count": count,
            "case": name,
            "order": CASES.index(case),
            "figures": f"{listed((f'{place * step:g}–{(place + 1) * step:g}°', name))}: "
            + counted("{count} neuron", "{count} neurons", count),
        }
        for place, count in enumerate(counts)
        if count
    ]


def _degrees() -> Spec:
    return {
        "type": "quantitative",
        "title": _("Angle between the old and the new update"),
        "scale": {"domain": [0, 180], "nice": False},
        "axis": {"values": [0, 30, 60, 90, 120, 150, 180], "labelExpr": _DEGREES, "grid": False},
    }


def _right_angle() -> Spec:
    line = {"type": "rule", "color": INK, "strokeDash": [6, 4], "strokeWidth": 1.25}
    return {"data": {"values": [{"at": 90}]}, "mark": line, "encoding": {"x": {**_degrees(), "field": "at"}}}
