"""What the section on concepts shows, put together from words, rows and charts."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.concepts import ConceptMeasures
from perdure.measuring.shares import Comparison
from perdure.web import charts, concept_charts, concepts, sentences
from perdure.web.charts import Chart
from perdure.web.words import N_, _

_SIDES = {"image": N_("Features of images by stage"), "text": N_("Features of texts by stage")}


@dataclass(frozen=True)
class Drift:
    """How far the stages of one side moved: a chart, the stages, and the sets."""

    chart: Chart
    stages: Sequence[str]
    rows: Sequence[concepts.SetRow]


@dataclass(frozen=True)
class Recognised:
    """What the section shows: the sets, their classes, what was lost, where the features moved.

    Attributes:
        left_out: Sets that are not shown.
        class_count: Classes of sets that it was not tuned on.
        every_count: Classes that the wide intervals hold for.
    """

    says: str
    measures: ConceptMeasures
    rows: Sequence[concepts.SetRow]
    left_out: int
    shares: Chart
    classes: Sequence[concepts.ClassRow]
    class_count: int
    every_count: int
    class_chart: Chart | None
    lost: Sequence[concepts.LostGroup]
    drift: Sequence[Drift]

    @property
    def tuned(self) -> Sequence[concepts.SetRow]:
        """The sets that it was tuned on."""
        return [row for row in self.rows if row.found.tuned]


def recognised(found: ConceptMeasures) -> Recognised:
    """The section of these measures."""
    every = concepts.set_rows(found)
    rows, classes = every[: concepts.SET_LIMIT], concepts.class_rows(found)
    return Recognised(
        says=concepts.summary(found),
        measures=found,
        rows=rows,
        left_out=len(every) - len(rows),
        shares=_shares(concepts.drawn_sets(rows)),
        classes=classes,
        class_count=len(found.classes),
        every_count=sum(len(each.classes) for each in found.sets),
        class_chart=_changes([row.comparison for row in classes]) if classes else None,
        lost=concepts.lost_groups(found),
        drift=[_drift(side, shown) for side, shown in concept_charts.drift_sides(rows).items()],
    )


def probed(found: ConceptMeasures | None) -> list[Comparison]:
    """Every comparison of the sets, for the ways in which they were judged."""
    ways = [(each.linear, each.neighbours, each.zero_shot) for each in found.sets] if found else []
    return [comparison for each in ways for comparison in each if comparison is not None]


def _shares(drawn: Sequence[Comparison]) -> Chart:
    says, title = sentences.shares(drawn), _("Recognised, in percent")
    specs = [charts.shares_chart(drawn, says, narrow=narrow, title=title) for narrow in (False, True)]
    return Chart("chart-concepts", _("Recognised before and after"), says, *specs)


def _changes(drawn: Sequence[Comparison]) -> Chart:
    says = sentences.changes(drawn)
    specs = [charts.changes_chart(drawn, says, narrow=narrow) for narrow in (False, True)]
    return Chart("chart-classes", _("Change of each class"), says, *specs)


def _drift(side: str, rows: Sequence[concepts.SetRow]) -> Drift:
    says = concept_charts.drift_words(rows)
    specs = [concept_charts.drift_chart(rows, narrow=narrow) for narrow in (False, True)]
    names = [stage.stage for stage in rows[0].found.drift]
    return Drift(Chart(f"chart-drift-{side}", _(_SIDES[side]), says, *specs), names, rows)
