"""What a reader has to say about requests: where, what is wrong, what was merged, and the facts themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perdure.errors import RequestError
from perdure.requests.facts import Fact

_SHOWN = 20
ADVICE = "Nothing was taken. Correct these rows, or skip the bad ones (skip_bad=True) to take the others."
NOTHING_LEFT = "No row can be taken."
ROW_PROBLEMS = 20  # a hostile row can be wrong in a million places


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        file: The file's name, or the name of a list in memory; printable.
        number: A line (from 1) or an index in a list (from 0); None when the whole file is meant.
        unit: Which of the two `number` is.
    """

    file: str
    number: int | None = None
    unit: Literal["line", "index"] = "line"

    def __str__(self) -> str:
        if self.number is None:
            return self.file
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}[{self.number}]"


@dataclass(frozen=True)
class Problem:
    """One reason why a row cannot be used.

    Attributes:
        place: The row.
        reason: What is wrong and what to do.
        field: The field as the file names it, such as `neighbours[2].prompt`; empty for the whole row.
        value: What the field held, shortened and printable.
    """

    place: Place
    reason: str
    field: str = ""
    value: str = ""

    def __str__(self) -> str:
        subject = " ".join(part for part in (self.field, self.value) if part)
        return f"{self.place}: {subject}: {self.reason}" if subject else f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Row:
    """One row as a reader found it: its value, or the problems that make it unreadable."""

    place: Place
    value: object = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Merge:
    """Rows that ask for the same fact and became one.

    Attributes:
        fact_id: The id of the fact.
        kept: The first row that asks for it.
        merged: The later ones, whose paraphrases and questions were added to the first.
    """

    fact_id: str
    kept: Place
    merged: tuple[Place, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.merged))} merged into {self.kept}"


@dataclass(frozen=True)
class FactFile:
    """Facts that passed every check, with what was left out and what was merged.

    Attributes:
        facts: In the order of the rows, no identity twice.
        problems: Of the rows left out; empty unless bad rows were to be skipped.
        merged: One entry for each fact asked for more than once.
        digest: The sha256 (hex) of the file's bytes, or of the facts when they came from memory.
    """

    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    merged: tuple[Merge, ...]
    digest: str


def refusal(problems: Sequence[Problem], advice: str = "") -> RequestError:
    """The error for `problems`: a line for each of the first 20, how many more, and what to do."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'} in {problems[0].place.file}:"
    lines = [count, *(f"  {problem}" for problem in problems[:_SHOWN])]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more.")
    if advice:
        lines.append(advice)
    return RequestError("\n".join(lines), problems)


def refuse_whole(file: str, reason: str, line: int | None = None) -> RequestError:
    """The error for a file that cannot be read at all."""
    return refusal([Problem(Place(file, line), reason)])
