"""Facts that were taken out again: are they gone, is the answer of before back, and did the others stay?"""

from collections.abc import Sequence

from perdure.endings import first_clause
from perdure.errors import RequestError
from perdure.measuring.answers import plain, says
from perdure.measuring.compare import compare_hits, preference
from perdure.measuring.outcomes import EditAnswer, Outcomes
from perdure.measuring.report import Comparison, RemovalMeasures, RemovedCase
from perdure.measuring.statistics import share_of
from perdure.requests import Fact


def questions_about(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The facts with the questions that must lose their taught answer: as written and in other words."""
    return tuple(fact.model_copy(update={"neighbours": (), "portability": ()}) for fact in facts)


def build_removal(name: str, original: Outcomes, before: Outcomes, after: Outcomes) -> RemovalMeasures | None:
    """What became of facts that were taken out, and whether the others kept their answers; None when none was.

    Args:
        name: Of the version before any of them was taught.
        original: Of that version, on `questions_about` the removed facts.
        before: Of the version that they were taken out of, with `references_from` the original's answers.
        after: Of the candidate, with the same references.

    Raises:
        RequestError: The models were asked different questions.
    """
    first, then, now = ({answer.question: answer for answer in found.removed} for found in (original, before, after))
    if not now:
        return None
    if not first.keys() == then.keys() == now.keys():
        raise RequestError("the models were asked different questions about the removed facts; measure all alike")
    cases = [_case(first[question], then[question], now[question]) for question in now]
    return RemovalMeasures(
        facts=len({case.fact for case in cases}),
        original=name,
        gone=share_of([case.gone for case in cases]),
        back=share_of([case.back for case in cases]),
        cases=tuple(cases),
        unchanged=_unchanged(before, after),
    )


def _case(first: EditAnswer, before: EditAnswer, after: EditAnswer) -> RemovedCase:
    return RemovedCase(
        fact=after.fact,
        subject=after.subject,
        kind=after.kind,
        prompt=after.prompt,
        taught=after.target,
        original=first.written,
        before=before.written,
        after=after.written,
        gone=first.contains or not after.contains,
        back=is_back(first, after),
        probability_original=preference(first),
        probability_before=preference(before),
        probability_after=preference(after),
    )


def is_back(first: EditAnswer, after: EditAnswer) -> bool:
    """Whether the answer of before stands where the taught one stood; what follows it in the sentence may differ."""
    if plain(first.written) == plain(after.written):
        return True
    known = first.rival if first.rival and says(first.rival, first.written) else first_clause(first.written)
    return bool(known) and says(known, after.written) and (first.contains or not after.contains)


def _unchanged(before: Outcomes, after: Outcomes) -> Comparison | None:
    earlier = {answer.question: answer.written for answer in before.edits if answer.kind != "neighbour"}
    same = [answer.written == earlier[answer.question] for answer in after.edits if answer.question in earlier]
    if not same:
        return None
    label = "answers word for word as before, asked for the facts that stay"
    return compare_hits("removal.unchanged", label, "free generation", ([True] * len(same), same, None))
