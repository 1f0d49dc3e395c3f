"""Concepts found without labels: in plain words, as rows of tables, and as a chart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.shares import Comparison, Difference
from perdure.measuring.watched import WatchedConcept, WatchedMeasures
from perdure.web import charts, figures, sentences
from perdure.web.charts import Chart
from perdure.web.visible import one_line, squeeze, visible
from perdure.web.words import _, counted, in_turn, listed, quoted

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
            "label": _("{name} (protected)").format(name=self.name) if self.found.protected else self.name,
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
    chart = Chart("chart-watched", _("Change of each watched concept"), says, *specs)
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
    first = counted(
        "In {source}, {count} concept was found without labels.",
        "In {source}, {count} concepts were found without labels.",
        len(found.concepts),
        source=quoted(one_line(found.source)),
    )
    return in_turn(first, _told_apart(found), _worse(found), _protected(found))


def _told_apart(found: WatchedMeasures) -> str:
    """How well the model tells the concepts apart, against before and against the original."""
    whose = _("the traffic")
    if found.counted:
        whose = _("the traffic of {source}").format(source=quoted(one_line(found.counted)))
    said = _("Over {traffic}, the model tells them apart {changed} than before.")
    since = ""
    if found.traffic_against_base:
        said = _("Over {traffic}, the model tells them apart {changed} than before, and {since} than the original.")
        since = _moved(found.traffic_against_base)
    return said.format(traffic=whose, changed=_moved(found.traffic), since=since)


def _moved(given: Difference) -> str:
    """Such as "4.4 points less often (−5.1 to −3.7 points; n = 900)"; no direction where the interval holds zero."""
    if given.low <= 0 <= given.high:
        said = _("neither clearly more nor less often ({interval} points; {n})")
    elif given.value < 0:
        said = _("{size} less often ({interval} points; {n})")
    else:
        said = _("{size} more often ({interval} points; {n})")
    return said.format(
        size=figures.size_in_points(abs(given.value)),
        interval=figures.difference_interval(given),
        n=figures.sample(given.n),
    )


def _worse(found: WatchedMeasures) -> str:
    lost = found.worse
    if not lost:
        return _("None got clearly worse.")
    called = {row.found.concept.id: row.name for row in watched_rows(found)}
    names = listed(quoted(called[each.concept.id]) for each in lost[:_NAMED])
    if len(lost) > _NAMED:
        more = figures.whole(len(lost) - _NAMED)
        names = _("{names} and {count} more").format(names=names, count=more)
    share = figures.percentage(sum(each.concept.share for each in lost), 1)
    said = _("It is {share} of the traffic.") if len(lost) == 1 else _("They are {share} of the traffic.")
    return in_turn(_("Clearly worse: {names}.").format(names=names), said.format(share=share))


def _protected(found: WatchedMeasures) -> str:
    kept = found.protected
    if not kept:
        return _("None is protected.")
    worst = min(kept, key=lambda each: each.linear.difference.value)
    if len(kept) == 1:
        said = _("The protected one changed by {difference}.")
        return said.format(difference=figures.difference(worst.linear.difference))
    said = _("Of the {count} protected ones, the one that moved furthest down, {name}, changed by {difference}.")
    return said.format(
        count=figures.whole(len(kept)),
        name=quoted(squeeze(one_line(visible(worst.concept.name)), NAME_LIMIT)),
        difference=figures.difference(worst.linear.difference),
    )
