"""Facts that were taught, found again by what people call them: id, prompt or subject."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from perdure.errors import RequestError
from perdure.requests.facts import Fact

_ID = re.compile(r"[0-9a-f]{4,64}")
_SHOWN = 5


def choose_facts(names: Sequence[str], facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts that the names mean, each once, in the order of `facts`.

    Args:
        names: An id or the first four or more digits of one, a prompt, or a subject.
        facts: The facts to choose from.

    Raises:
        RequestError: A name means no fact (near ones are listed) or several (all are listed); all such names at once.
    """
    known = {fact.id: fact for fact in facts}
    chosen: set[str] = set()
    problems = []
    for name in names:
        found = _named(name, known.values())
        chosen.update(fact.id for fact in found)
        if len(found) != 1:
            problems.append(_explain(name, found, list(known.values())))
    if problems:
        raise RequestError("\n".join(problems))
    return tuple(fact for fact in known.values() if fact.id in chosen)


def describe(fact: Fact) -> str:
    """One line about a fact: the start of its id, its prompt and its answer."""
    return f"{fact.short_id}  {fact.prompt} → {fact.target_new}"


def _named(name: str, facts: Iterable[Fact]) -> list[Fact]:
    """The facts that a name means: by id, else by prompt, else by subject."""
    text = unicodedata.normalize("NFC", name).strip()
    given = list(facts)
    ways = (
        [fact for fact in given if _ID.fullmatch(text) and fact.id.startswith(text)],
        [fact for fact in given if fact.prompt == text],
        [fact for fact in given if fact.subject == text],
    )
    return next((found for found in ways if found), [])


def _explain(name: str, found: Sequence[Fact], facts: Sequence[Fact]) -> str:
    if found:
        lines = "".join(f"\n  {describe(fact)}" for fact in found[:_SHOWN])
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"{name!r} means {len(found)} facts; name one by its id:{lines}{more}"
    near = _near(name, facts)
    lines = "".join(f"\n  {describe(fact)}" for fact in near)
    hint = f"Near ones:{lines}" if near else f"{len(facts)} facts were taught; none is near"
    return f"no fact has the id, the prompt or the subject {name!r}. {hint}"


def _near(name: str, facts: Sequence[Fact]) -> list[Fact]:
    """The facts whose prompt, subject or id looks like the name, the nearest first."""
    text = name.strip().casefold()

    def likeness(fact: Fact) -> float:
        ways = (fact.prompt.casefold(), fact.subject.casefold(), fact.id[: len(text)])
        return max(difflib.SequenceMatcher(None, text, way).ratio() + (text in way) for way in ways)

    scored = sorted(((likeness(fact), -place) for place, fact in enumerate(facts)), reverse=True)
    return [facts[-place] for score, place in scored[:_SHOWN] if score >= 0.6]
