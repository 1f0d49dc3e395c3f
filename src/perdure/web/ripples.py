"""Ripple effects for reading: questions that follow from the new facts, and what became of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from perdure.measuring.report import Comparison, RippleCase, RippleMeasures, RippleWording
from perdure.measuring.ripple_measures import words_of
from perdure.web.cases import BAD, GOOD, TEXT_LIMIT, Outcome
from perdure.web.reported import told
from perdure.web.words import N_, _, counted

# What the rows may take of the page, in bytes; the report's data holds all of them.
ROOM = 120_000
_MARKUP = 1000
_FREE = "free generation"
# Each wording for itself, and old answers, stand in the table only.
_DRAWN = ("steps", "all_steps", "answered")
_MEANINGS = {
    "several facts joined": N_("the answer needs several facts, one after the other; each of them is a single step"),
    "reasoning": N_("the answer takes a step from the new fact to something that the model may know already"),
    "another name for the subject": N_("the fact is asked for with the subject under another name"),
    "the fact turned round": N_(
        "the fact is asked for from its other side, such as the child where the father was taught"
    ),
    "what follows from the fact": N_("the answer follows from the new fact"),
}


@dataclass(frozen=True)
class KindMeasures:
    """The measures of one kind of question, each with its label, which the kind heads; what the kind means."""

    kind: str
    meaning: str
    rows: tuple[tuple[str, Comparison], ...]


@dataclass(frozen=True)
class RippleRow:
    """One question with its outcome: the wording shown, how many were answered, and how many single steps."""

    case: RippleCase
    wording: RippleWording
    outcome: Outcome
    wordings: str
    steps: str


@dataclass(frozen=True)
class RippleGroup:
    """The questions of one kind."""

    kind: str
    rows: tuple[RippleRow, ...]


@dataclass(frozen=True)
class RippleListing:
    """Groups of rows, with the number of questions that the limit left out."""

    groups: tuple[RippleGroup, ...] = ()
    shown: int = 0
    left_out: int = 0


def ripple_listing(cases: Sequence[RippleCase], *, room: int = ROOM) -> RippleListing:
    """The questions by kind, as many as fit into `room` bytes of the page, those that went wrong first."""
    order = sorted(range(len(cases)), key=lambda place: (cases[place].after_ok, place))
    sizes = accumulate(_size(cases[place]) for place in order)
    kept = [cases[place] for place in sorted(p for p, size in zip(order, sizes, strict=True) if size <= room)]
    by_kind: dict[str, list[RippleRow]] = {}
    for case in kept:
        by_kind.setdefault(words_of(case.kind), []).append(_row(case))
    groups = tuple(RippleGroup(told(kind), tuple(rows)) for kind, rows in by_kind.items())
    return RippleListing(groups, len(kept), len(cases) - len(kept))


def drawn(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons for the chart: what the model freely writes, the single steps and the questions."""
    return [given for given in comparisons if given.how == _FREE and given.name.rpartition(".")[2] in _DRAWN]


def by_kind(comparisons: Sequence[Comparison]) -> tuple[KindMeasures, ...]:
    """The comparisons kind by kind, in their order."""
    found: dict[str, list[tuple[str, Comparison]]] = {}
    for given in comparisons:
        kind, _colon, label = given.label.rpartition(": ")
        found.setdefault(kind, []).append((told(label), given))
    return tuple(
        KindMeasures(told(kind), _(_MEANINGS[kind]) if kind in _MEANINGS else "", tuple(rows))
        for kind, rows in found.items()
    )


def unasked(measures: RippleMeasures) -> list[str]:
    """A sentence for each reason why questions were left out."""
    return [
        counted(
            "{count} question was not asked: {reason}.",
            "{count} questions were not asked: {reason}.",
            count,
            reason=told(reason),
        )
        for reason, count in measures.left_out.items()
    ]


def _size(case: RippleCase) -> int:
    """About the bytes that a row takes."""
    wording = _shown(case)
    texts = (wording.prompt, wording.before, wording.after)
    return _MARKUP + sum(len(text[:TEXT_LIMIT].encode(errors="replace")) for text in texts)


def _shown(case: RippleCase) -> RippleWording:
    """The first wording that is answered after, else the first that was before, else the first."""
    for found in (
        next((wording for wording in case.wordings if wording.after_ok), None),
        next((wording for wording in case.wordings if wording.before_ok), None),
    ):
        if found is not None:
            return found
    return case.wordings[0]


def _row(case: RippleCase) -> RippleRow:
    right, count = sum(wording.after_ok for wording in case.wordings), len(case.wordings)
    known, steps = sum(hop.after_ok for hop in case.hops), len(case.hops)
    return RippleRow(
        case,
        _shown(case),
        _outcome(case),
        _("{right} of {all} wordings answered").format(right=right, all=count) if count > 1 else "",
        _("{right} of {all} single steps answered").format(right=known, all=steps) if steps > 1 else "",
    )


def _outcome(case: RippleCase) -> Outcome:
    if case.after_ok:
        return Outcome(GOOD, N_("Right before and after") if case.before_ok else N_("Answered"))
    if case.before_ok:
        return Outcome(BAD, N_("Right before, wrong now"))
    if not case.steps_after_ok:
        return Outcome(BAD, N_("Not answered"))
    several = len(case.hops) > 1
    return Outcome(BAD, N_("Every step known, not joined") if several else N_("Fact known, not drawn on"))
