"""What an encoder recognises, in the terminal: before and after."""

from typing import TYPE_CHECKING

from perdure.cli.console import percent, points, say, table

if TYPE_CHECKING:
    from perdure.measuring.concepts import ConceptMeasures
    from perdure.measuring.shares import Difference
    from perdure.web.concepts import SetRow


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
