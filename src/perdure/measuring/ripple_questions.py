"""Which questions count for a version: those that follow from facts which it was taught, all of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perdure.content import digest_json
from perdure.requests import Consequence, Fact, Hop
from perdure.requests.wording import fold

MULTI_HOP = "multi-hop"
PORTABILITY = "portability"

UNANSWERED = "no right answer is given"
UNKNOWN = "this version was not taught every fact that they need"
OVERTAKEN = "another fact that was taught changes one of their steps"
TOO_LONG = "they are too long for the model"


@dataclass(frozen=True)
class RippleQuestion:
    """One question whose answer follows from facts that were taught.

    Attributes:
        id: What makes it the one it is, sha256 (hex).
        kind: What it tests, such as "multi-hop" or "Subject_Aliasing".
        subject: Of the first fact that it needs.
        wordings: Every way in which it is asked.
        answer: What is right after the edit.
        aliases: Other answers that count.
        old_answer: What was right before; None when not known.
        old_aliases: Other answers that were right before.
        hops: Its single steps: those given, else the facts that it needs, asked as they were taught.
    """

    id: str
    kind: str
    subject: str
    wordings: tuple[str, ...]
    answer: str
    aliases: tuple[str, ...]
    old_answer: str | None
    old_aliases: tuple[str, ...]
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class RippleQuestions:
    """The questions that count, and why others do not.

    Attributes:
        asked: In the order of the facts, each once.
        left_out: From a reason, in words, to how many questions it leaves out.
    """

    asked: tuple[RippleQuestion, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def choose_questions(facts: Sequence[Fact], earlier: Iterable[Fact] = ()) -> RippleQuestions:
    """The questions that follow from `facts`, alone or together with what was taught earlier.

    A fact with the subject and prompt of an earlier one takes its place. A question is left out where a
    fact that it needs is not known, or where some other fact answers one of its steps differently: what
    follows then is another answer (as for the questions of MQuAKE when all cases are edited at once).

    Args:
        facts: What a version was taught.
        earlier: What the versions before it in its lineage were taught, the oldest first.
    """
    known = {(fold(fact.subject), fold(fact.prompt)): fact for fact in (*earlier, *facts)}
    by_id = {fact.id: fact for fact in known.values()}
    taught = _taught(known.values())
    asked: dict[str, RippleQuestion] = {}
    left_out: dict[str, str] = {}
    for fact in facts:
        for given in fact.portability:
            needs = given.needs or (fact.id,)
            key = digest_json([given.model_dump(mode="json", exclude={"needs"}), needs])
            reason = _reason_against(given, needs, by_id, taught)
            if reason:
                left_out[key] = reason
            elif key not in asked:
                asked[key] = _question(key, given, [by_id[need] for need in needs])
    return RippleQuestions(tuple(asked.values()), dict(Counter(left_out.values())))


def _taught(facts: Iterable[Fact]) -> dict[str, set[str]]:
    """From every way to ask for a fact, folded, to the targets that were taught for it, folded."""
    found: dict[str, set[str]] = {}
    for fact in facts:
        for text in (fact.prompt, *fact.paraphrases):
            found.setdefault(fold(text), set()).add(fold(fact.target_new))
    return found


def _reason_against(
    given: Consequence, needs: Sequence[str], known: Mapping[str, Fact], taught: Mapping[str, set[str]]
) -> str:
    if given.answer is None:
        return UNANSWERED
    if any(need not in known for need in needs):
        return UNKNOWN
    return OVERTAKEN if any(_is_overtaken(hop, taught) for hop in given.hops) else ""


def _is_overtaken(hop: Hop, taught: Mapping[str, set[str]]) -> bool:
    """Whether this step was taught another answer than the one that the question builds on."""
    targets = taught.get(fold(hop.prompt))
    return targets is not None and not targets & {fold(text) for text in (hop.answer, *hop.aliases)}


def _question(key: str, given: Consequence, facts: Sequence[Fact]) -> RippleQuestion:
    assert given.answer is not None
    hops = given.hops or tuple(Hop(prompt=fact.prompt, answer=fact.target_new) for fact in facts)
    return RippleQuestion(
        id=key,
        kind=given.kind or (MULTI_HOP if len(hops) > 1 else PORTABILITY),
        subject=facts[0].subject,
        wordings=given.wordings,
        answer=given.answer,
        aliases=given.aliases,
        old_answer=given.old_answer,
        old_aliases=given.old_aliases,
        hops=hops,
    )
