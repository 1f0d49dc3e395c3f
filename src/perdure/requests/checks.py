"""Rows turned into facts: every fault named at once, duplicates merged, contradictions refused."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perdure.content import digest_json
from perdure.requests.drafts import Draft, MisshapenError
from perdure.requests.facts import Fact
from perdure.requests.problems import (
    ADVICE,
    NOTHING_LEFT,
    ROW_PROBLEMS,
    FactFile,
    Merge,
    Place,
    Problem,
    Row,
    refusal,
    refuse_whole,
)
from perdure.requests.questions import (
    PARAPHRASES_LIMIT,
    QUESTIONS_LIMIT,
    Consequence,
    Consequences,
    Hop,
    Neighbour,
    unique,
)
from perdure.requests.shapes import shape_of
from perdure.requests.wording import escape, fold, name_kind, shorten

_NO_FACTS = "no facts: there is no row to take"
_LIMITS = {
    "paraphrases": PARAPHRASES_LIMIT,
    "neighbours": QUESTIONS_LIMIT,
    "portability": QUESTIONS_LIMIT,
}


def check_facts(rows: Iterable[object], *, skip_bad: bool = False, name: str = "facts") -> FactFile:
    """Checked facts from a list of objects (in any shape that files may have) or of `Fact`s.

    Args:
        rows: Dicts or facts.
        skip_bad: Leave bad rows out and report them, instead of refusing all.
        name: What the list is called in messages, as in `facts[3]`.

    Raises:
        RequestError: A row is bad and `skip_bad` is not set, or no fact is left; `.problems` has each reason.
    """
    if isinstance(rows, str | bytes | Mapping | BaseModel) or not isinstance(rows, Iterable):
        raise refuse_whole(name, f"must be a list of facts, got {name_kind(rows)}")
    numbered = (Row(Place(name, index, "index"), value) for index, value in enumerate(rows))
    return gather(numbered, name=name, skip_bad=skip_bad)


def gather(rows: Iterable[Row], *, name: str, skip_bad: bool = False, digest: str | None = None) -> FactFile:
    """The facts of `rows`, checked one by one and then against each other.

    With a `digest` the rows come from a file, and each fact without a source gets its place as source.

    Raises:
        RequestError: As `check_facts`.
    """
    asked: dict[tuple[str, str, str], _Asked] = {}
    problems: list[Problem] = []
    for row in rows:
        found, bad = _facts_of(row, sourced=digest is not None)
        problems += bad
        for fact in found:
            asked.setdefault(fact.identity, _Asked()).add(fact, row.place)
    disputed = dict(_conflicts(asked.values())) | dict(_overflows(asked.values()))
    problems += (problem for found in disputed.values() for problem in found)
    problems.sort(key=lambda problem: -1 if problem.place.number is None else problem.place.number)
    kept = [entry for entry in asked.values() if entry.facts[0].identity not in disputed]
    if not problems and not kept:
        raise refuse_whole(name, _NO_FACTS)
    if problems and (not skip_bad or not kept):
        raise refusal(problems, ADVICE if kept else NOTHING_LEFT)
    facts = tuple(entry.joined() for entry in kept)
    merged = tuple(entry.merge() for entry in kept if len(entry.places) > 1)
    named = digest or digest_json([fact.model_dump(mode="json") for fact in facts])
    return FactFile(facts, tuple(problems), merged, named)


@dataclass
class _Asked:
    """All that was asked under one identity, in the order of the rows."""

    facts: list[Fact] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, fact: Fact, place: Place) -> None:
        self.facts.append(fact)
        self.places.append(place)

    def union(self) -> dict[str, tuple[Any, ...]]:
        """Paraphrases and questions of all rows, each once."""
        return {
            key: tuple(dict.fromkeys(entry for fact in self.facts for entry in getattr(fact, key))) for key in _LIMITS
        }

    def joined(self) -> Fact:
        """One fact: lists united, each single field from the first row that has it."""
        first = self.facts[0]
        if len(self.facts) == 1:
            return first
        single = {
            key: next((held for fact in self.facts if (held := getattr(fact, key)) is not None), None)
            for key in ("target_true", "relation", "source")
        }
        return first.model_copy(update=single | self.union())

    def merge(self) -> Merge:
        return Merge(self.facts[0].id, self.places[0], tuple(self.places[1:]))


def _facts_of(row: Row, *, sourced: bool) -> tuple[list[Fact], list[Problem]]:
    """The facts of one row, or the reasons why it has none: one bad fact refuses the whole row."""
    if row.problems:
        return [], list(row.problems)
    problems: list[Problem] = []
    shared = Draft({})
    if isinstance(row.value, Fact):
        drafts = [Draft(dict(row.value))]
    elif isinstance(row.value, Mapping):
        drafts, shared, problems = _drafts_of(row.place, row.value)
    else:
        reason = f"must be an object with subject, prompt and target_new, got {name_kind(row.value)}"
        return [], [Problem(row.place, reason, value=shorten(row.value))]
    facts = []
    for draft in drafts:
        if sourced and draft.values.get("source") is None:
            draft.values["source"] = str(row.place)
        try:
            facts.append(Fact.model_validate(draft.values))
        except ValidationError as error:
            problems += _problems_of(row.place, draft, error)
    try:
        asked = _Shared.model_validate(shared.values).portability
    except ValidationError as error:
        problems += _problems_of(row.place, shared, error)
    return ([], problems) if problems else _sharing(row.place, facts, asked)


class _Shared(BaseModel):
    """The questions of a row that need all of its facts."""

    portability: Consequences = ()


def _sharing(place: Place, facts: list[Fact], asked: Consequences) -> tuple[list[Fact], list[Problem]]:
    """The facts of one row, each with the questions that need all of them."""
    if not asked:
        return facts, []
    ids = [fact.id for fact in facts]
    joint = tuple(question.needing(ids) for question in asked)
    found = [fact.model_copy(update={"portability": unique((*fact.portability, *joint))}) for fact in facts]
    problems = [
        Problem(place, f"has {count} questions for one fact; at most {QUESTIONS_LIMIT} are allowed", "questions")
        for fact in found
        if (count := len(fact.portability)) > QUESTIONS_LIMIT
    ]
    return ([], problems[:1]) if problems else (found, [])


def _drafts_of(place: Place, row: Mapping[str, Any]) -> tuple[list[Draft], Draft, list[Problem]]:
    shape = shape_of(row)
    reason = f"is not a field of the {shape.name} shape, which the other fields show; use the names of one shape"
    problems = [Problem(place, reason, key, shorten(row[key])) for key in shape.ignored(row)]
    try:
        return shape.read(row), shape.shared(row), problems
    except MisshapenError as error:
        return [], Draft({}), [*problems, Problem(place, str(error), escape(error.where), shorten(error.value))]


def _as_said(detail: ErrorDetails) -> str:
    return detail["msg"]


def _fields_at(where: tuple[int | str, ...]) -> list[str]:
    """The fields that an object at this place of a fact may have."""
    if len(where) <= 1:
        return list(Fact.model_fields)
    if "hops" in where[:-1]:
        return list(Hop.model_fields)
    return list((Neighbour if where[0] == "neighbours" else Consequence).model_fields)


def _unknown(detail: ErrorDetails) -> str:
    known = _fields_at(detail["loc"])
    near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.75)
    return f"unknown field. Known: {', '.join(known)}." + (f" Did you mean {near[0]!r}?" if near else "")


_REASONS: dict[str, Callable[[ErrorDetails], str]] = {
    "value_error": lambda detail: str(detail["ctx"]["error"]),
    "missing": lambda detail: "is missing",
    "extra_forbidden": _unknown,
    "string_type": lambda detail: f"must be text in quotes, got {name_kind(detail['input'])}",
    "tuple_type": lambda detail: f"must be a list, got {name_kind(detail['input'])}",
    "model_type": lambda detail: f"must be an object with prompt and answer, got {name_kind(detail['input'])}",
    "invalid_key": lambda detail: "field names must be text",
    "string_unicode": lambda detail: "a field name holds half of a surrogate pair, which is no character",
}


def _problems_of(place: Place, draft: Draft, error: ValidationError) -> list[Problem]:
    """The first problems of one draft, and how many more there are."""
    details = error.errors(include_url=False)
    more = len(details) - ROW_PROBLEMS
    found = [_problem(place, draft, detail) for detail in details[:ROW_PROBLEMS]]
    return [*found, Problem(place, f"and {more} more problems in this row")] if more > 0 else found


def _problem(place: Place, draft: Draft, detail: ErrorDetails) -> Problem:
    own = path = ""
    for step in detail["loc"]:
        more = f"[{step}]" if isinstance(step, int) and own else f".{escape(str(step))[:60]}"
        own = (own + more).removeprefix(".")
        path = draft.names.get(own, (path + more).removeprefix("."))
    reason = _REASONS.get(detail["type"], _as_said)(detail)
    value = "" if detail["type"] == "missing" else shorten(detail["input"])
    return Problem(place, reason, path, value)


_Disputed = Iterator[tuple[tuple[str, str, str], list[Problem]]]


def _conflicts(asked: Iterable[_Asked]) -> _Disputed:
    """Problems, by identity, of facts that give one subject and prompt several targets."""
    groups: dict[tuple[str, str], list[_Asked]] = {}
    for entry in asked:
        subject, prompt, _ = entry.facts[0].identity
        groups.setdefault((fold(subject), fold(prompt)), []).append(entry)
    for group in groups.values():
        if len({entry.facts[0].target_new for entry in group}) > 1:
            for entry in group:
                yield entry.facts[0].identity, _contradictions(entry, group)


def _contradictions(entry: _Asked, group: Sequence[_Asked]) -> list[Problem]:
    target = entry.facts[0].target_new
    others = [other for other in group if other.facts[0].target_new != target]
    said = ", ".join(f"{shorten(other.facts[0].target_new)} at {other.places[0]}" for other in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    reason = f"the same subject and prompt has the target {said}{more}; keep one"
    return [Problem(place, reason, "target_new", shorten(target)) for place in entry.places]


def _overflows(asked: Iterable[_Asked]) -> _Disputed:
    """Problems, by identity, of facts whose united lists are longer than a fact may hold."""
    for entry in asked:
        if len(entry.facts) == 1:
            continue
        problems = [
            Problem(
                entry.places[-1],
                f"asks for the same fact as {entry.places[0]}; together they have {len(united)}, "
                f"at most {_LIMITS[key]} are allowed",
                key,
            )
            for key, united in entry.union().items()
            if len(united) > _LIMITS[key]
        ]
        if problems:
            yield entry.facts[0].identity, problems
