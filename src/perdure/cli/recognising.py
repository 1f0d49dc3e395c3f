"""What an encoder recognises, in the terminal: before and after."""

from typing import TYPE_CHECKING

from perdure.cli.console import percent, points, say, table

if TYPE_CHECKING:
    from perdure.measuring.concepts import ConceptMeasures
    from perdure.measuring.shares import Difference
    from perdure.measuring.watched import WatchedMeasures
    from perdure.web.concepts import SetRow

_SHOWN = 30
_WIDE = 44


def say_concepts(concepts: "ConceptMeasures") -> None:
    """Print each probe set before and after, and what it all comes to in words."""
    from perdure.web.concepts import set_rows, summary

    columns = ["set", "before", "after", "points", "nearest neighbours", "by name", "n"]
    table("Recognised (linear probe)", columns, [_row(row) for row in set_rows(concepts)])
    say(summary(concepts))


def _row(row: "SetRow") -> list[str]:
    found = row.found
    return [
        f"{row.name} (tuned on)" if found.tuned else row.name,
        percent(found.linear.before.value),
        percent(found.linear.after.value),
        _moved(found.linear.difference),
        points(found.neighbours.difference.value),
        points(found.zero_shot.difference.value) if found.zero_shot else "",
        str(found.linear.after.n),
    ]


def _moved(difference: "Difference") -> str:
    return f"{points(difference.value)} ({points(difference.low)} to {points(difference.high)})"


def say_watched(found: "WatchedMeasures") -> None:
    """Print the part of a report on watched concepts."""
    ranked = sorted(found.concepts, key=lambda each: (not each.protected, each.linear.difference.value))
    rows = [
        [
            each.concept.id,
            f"{'* ' if each.protected else ''}{short(each.concept.name)}",
            percent(each.concept.share),
            percent(each.linear.before.value),
            percent(each.linear.after.value),
            f"{points(each.linear.difference.value)} ({points(each.linear.difference.low)} to "
            f"{points(each.linear.difference.high)})",
            f"{each.drift.value:.3f}",
        ]
        for each in ranked[:_SHOWN]
    ]
    table("Watched concepts", ["id", "concept", "traffic", "before", "after", "points", "drift"], rows)
    moved = found.traffic
    say(
        f"Over the traffic: {points(moved.value)} points ({points(moved.low)} to {points(moved.high)}, n = {moved.n}). "
        f"Clearly worse: {len(found.worse)} of {len(found.concepts)} concepts. * protected."
    )


def short(name: str) -> str:
    """A concept's name as a table has room for it."""
    return name if len(name) <= _WIDE else f"{name[: _WIDE - 1]}…"
