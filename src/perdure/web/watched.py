"""Concepts found without labels: in plain words, as rows of tables, and as a chart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.shares import Comparison, Difference
from perdure.measuring.watched import WatchedConcept, WatchedMeasures
from perdure.web import charts, figures, sentences
from perdure.web.charts import Chart
from perdure.web.visible import one_line, squeeze, visible

NAME_LIMIT = 60
ROW_LIMIT = 20
"""More concepts than a person reads; the report's data holds all of them."""
_NAMED = 3


@dataclass(frozen=True)
class WatchedRow:
    """One concept with the name that tells it from the others."""

    found: WatchedConcept
    name: str

    @property
    def comparison(self) -> Comparison:
        """As the chart draws it: with the interval that holds for all concepts at once."""
        return self.found.linear.model_copy(update={
            "label": f"{self.name} (protected)" if self.found.protected else self.name,
            "difference": self.found.jointly,
            "against_base": None,
        })  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """What the section shows.

    Attributes:
        rows: The protected concepts, then those that clearly changed, then those that occur most.
        left_out: Concepts that are not shown.
    """

    says: str
    measures: WatchedMeasures
    rows: Sequence[WatchedRow]
    left_out: int
    chart: Chart


def watched(found: WatchedMeasures) -> Watched:
    """The section of these measures."""
    every = watched_rows(found)
    rows = every[:ROW_LIMIT]
    drawn = [row.comparison for row in rows]
    says = sentences.changes(drawn)
    specs = [charts.changes_chart(drawn, says, narrow=narrow) for narrow in (False, True)]
    chart = Chart("chart-watched", "Change of each watched concept", says, *specs)
    return Watched(summary(found), found, rows, len(every) - len(rows), chart)


def followed_up(found: WatchedMeasures | None) -> list[Comparison]:
    """Every comparison of the concepts, for the ways in which they were judged."""
    return [way for each in found.concepts for way in (each.linear, each.neighbours)] if found else []


def watched_rows(found: WatchedMeasures) -> list[WatchedRow]:
    """Every concept: the protected, those that clearly changed, then the others; each as they occur."""
    short = [squeeze(one_line(visible(each.concept.name)), NAME_LIMIT) for each in found.concepts]
    often = Counter(short)
    rows = [
        WatchedRow(each, name if often[name] == 1 else f"{name} ({each.concept.id})")
        for each, name in zip(found.concepts, short, strict=True)
    ]
    return sorted(rows, key=lambda row: (not row.found.protected, not (row.found.worse or row.found.better)))


def summary(found: WatchedMeasures) -> str:
    """What became of the concepts, in plain words."""
    whose = f"the traffic of “{one_line(found.counted)}”" if found.counted else "the traffic"
    parts = [
        f"In “{one_line(found.source)}”, {figures.counted(len(found.concepts), 'concept')} were found without labels.",
        f"Over {whose}, the model tells them apart {_moved(found.traffic)} than before"
        + (f", and {_moved(found.traffic_against_base)} than the original." if found.traffic_against_base else "."),
    ]
    return " ".join([*parts, _worse(found), _protected(found)]).strip()


def _moved(given: Difference) -> str:
    """Such as "4.4 points less often (−5.1 to −3.7; n = 900)"; no direction where the interval holds zero."""
    behind = f"({figures.difference_interval(given)} points; {figures.sample(given.n)})"
    if given.low <= 0 <= given.high:
        return f"neither clearly more nor less often {behind}"
    size = figures.points(abs(given.value)).removeprefix("+")
    return f"{size} points {'less' if given.value < 0 else 'more'} often {behind}"


def _worse(found: WatchedMeasures) -> str:
    lost = found.worse
    if not lost:
        return "None got clearly worse."
    called = {row.found.concept.id: row.name for row in watched_rows(found)}
    listed = ", ".join(f"“{called[each.concept.id]}”" for each in lost[:_NAMED])
    share = sum(each.concept.share for each in lost)
    more = f" and {figures.whole(len(lost) - _NAMED)} more" if len(lost) > _NAMED else ""
    verb = "It is" if len(lost) == 1 else "They are"
    return f"Clearly worse: {listed}{more}. {verb} {100 * share:.1f}% of the traffic."


def _protected(found: WatchedMeasures) -> str:
    kept = found.protected
    if not kept:
        return "None is protected."
    worst = min(kept, key=lambda each: each.linear.difference.value)
    if len(kept) == 1:
        return f"The protected one changed by {figures.difference(worst.linear.difference)}."
    return (
        f"Of the {figures.whole(len(kept))} protected ones, the one that moved furthest down, "
        f"“{squeeze(one_line(visible(worst.concept.name)), NAME_LIMIT)}”, "
        f"changed by {figures.difference(worst.linear.difference)}."
    )
