"""The questions of a report, sorted for reading: what was taught, what had to stay, and what to show first."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from perdure.measuring.report import Case, RemovedCase
from perdure.web.figures import whole
from perdure.web.words import N_, _, counted

# What the rows of one table may take of the page, in bytes; the report's data holds all of them.
ROOM = 180_000
_MARKUP = 650
TEXT_LIMIT = 400
GOOD, BAD, NEUTRAL = "good", "bad", "neutral"
KINDS = {"prompt": N_("as taught"), "paraphrase": N_("asked differently"), "neighbour": N_("must not change")}


@dataclass(frozen=True)
class Outcome:
    """What became of one question.

    Attributes:
        tone: GOOD, BAD or NEUTRAL.
        text: The same for people, as the catalogues know it.
    """

    tone: str
    text: str

    @property
    def words(self) -> str:
        """The same for people, in the language in force."""
        return _(self.text)


@dataclass(frozen=True)
class Row:
    """One question with its outcome; `context` says how many of its kind went well."""

    case: Case
    outcome: Outcome
    kind: str
    context: str = ""


@dataclass(frozen=True)
class Group:
    """The questions about one fact."""

    subject: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Listing:
    """Groups of rows, with the number of rows that the limit left out."""

    groups: tuple[Group, ...] = ()
    shown: int = 0
    left_out: int = 0

    @property
    def headed(self) -> bool:
        """Whether subjects have several questions each, so that they stand as headings over them."""
        return self.shown > len(self.groups)

    @property
    def weighed(self) -> bool:
        """Whether any row has the probability of the new answer against the old."""
        return any(row.case.probability_after is not None for group in self.groups for row in group.rows)


_TAUGHT = {
    (False, True): Outcome(GOOD, N_("Learnt")),
    (True, True): Outcome(GOOD, N_("Right before and after")),
    (False, False): Outcome(BAD, N_("Not learnt")),
    (True, False): Outcome(BAD, N_("Right before, wrong now")),
}
_KNOWN_NEIGHBOUR = {
    (True, True): Outcome(GOOD, N_("Still right")),
    (False, True): Outcome(GOOD, N_("Wrong before, right now")),
    (False, False): Outcome(NEUTRAL, N_("Wrong before and after")),
    (True, False): Outcome(BAD, N_("Right before, wrong now")),
}


def outcome(case: Case) -> Outcome:
    """What became of the question; a neighbour without a known answer must keep the one of before."""
    if case.kind != "neighbour":
        return _TAUGHT[case.before_ok, case.after_ok]
    if case.expected is not None:
        return _KNOWN_NEIGHBOUR[case.before_ok, case.after_ok]
    kept = case.after_ok or case.after.strip() == case.before.strip()
    return Outcome(GOOD, N_("Unchanged")) if kept else Outcome(BAD, N_("Changed"))


def removed_outcome(case: RemovedCase) -> Outcome:
    """What became of a question about a fact that was taken out."""
    if not case.gone:
        return Outcome(BAD, N_("Still said"))
    return (
        Outcome(GOOD, N_("As before it was taught")) if case.back else Outcome(NEUTRAL, N_("Gone; another answer now"))
    )


def _is_neighbour(case: Case) -> bool:
    return case.kind == "neighbour"


def _size(case: Case) -> int:
    """About the bytes that a row takes."""
    texts = (case.prompt, case.before, case.after)
    return _MARKUP + sum(len(text[:TEXT_LIMIT].encode(errors="replace")) for text in texts)


def _fitting(cases: Sequence[Case], room: int) -> list[Case]:
    """As many cases as there is room for, in their order; those that went well are left out first."""
    order = sorted(range(len(cases)), key=lambda place: (outcome(cases[place]).tone != BAD, place))
    sizes = accumulate(_size(cases[place]) for place in order)
    kept = [place for place, size in zip(order, sizes, strict=True) if size <= room]
    return [cases[place] for place in sorted(kept)]


def listing(cases: Sequence[Case], *, neighbours: bool, room: int = ROOM) -> Listing:
    """The taught questions, or the neighbours, by fact, as many as fit into `room` bytes of the page."""
    chosen = [case for case in cases if _is_neighbour(case) is neighbours]
    kept = _fitting(chosen, room)
    by_fact: dict[str, list[Case]] = {}
    for case in kept:
        by_fact.setdefault(case.fact, []).append(case)
    groups = tuple(
        Group(found[0].subject, tuple(Row(case, outcome(case), _kind(case)) for case in found))
        for found in by_fact.values()
    )
    return Listing(groups, len(kept), len(chosen) - len(kept))


def _kind(case: Case) -> str:
    return _(KINDS[case.kind]) if case.kind in KINDS else case.kind


def _first(cases: Sequence[Case], kind: str, tones: Sequence[str], used: set[str]) -> Case | None:
    """The first case of the kind in the first tone that has any, about a fact not shown yet where possible."""
    for tone in tones:
        found = [case for case in cases if case.kind == kind and outcome(case).tone == tone]
        fresh = [case for case in found if case.fact not in used]
        if found:
            return (fresh or found)[0]
    return None


def _context(cases: Sequence[Case], kind: str) -> str:
    tones = [outcome(case).tone for case in cases if case.kind == kind]
    bad = tones.count(BAD)
    if not bad:
        return _("none of {count} went wrong").format(count=whole(len(tones)))
    return counted("{count} of {all} went wrong", "{count} of {all} went wrong", bad, all=whole(len(tones)))


def examples(cases: Sequence[Case]) -> tuple[Row, ...]:
    """Up to three questions that tell the story: one learnt, one asked differently, one that had to stay.

    Where something went wrong, the second and third show it: the first screen must not flatter.
    """
    wanted = (("prompt", (GOOD, BAD)), ("paraphrase", (BAD, GOOD)), ("neighbour", (BAD, GOOD, NEUTRAL)))
    used: set[str] = set()
    rows = []
    for kind, tones in wanted:
        case = _first(cases, kind, tones, used)
        if case is not None:
            used.add(case.fact)
            rows.append(Row(case, outcome(case), _kind(case), _context(cases, kind)))
    return tuple(rows)
