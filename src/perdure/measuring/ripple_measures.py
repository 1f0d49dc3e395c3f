"""Ripple effects as the report shows them: shares before and after per kind of question, and what they mean."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from perdure.errors import RequestError
from perdure.measuring.compare import compare_hits
from perdure.measuring.outcomes import Outcomes, RippleAnswer
from perdure.measuring.report import (
    Comparison,
    RippleCase,
    RippleHop,
    RippleMeasures,
    RippleWording,
    Share,
)
from perdure.measuring.ripple_questions import (
    MULTI_HOP,
    PORTABILITY,
    TOO_LONG,
    RippleQuestion,
    RippleQuestions,
)
from perdure.measuring.statistics import share_of

KINDS_SHOWN = 10
OTHER = "other_kinds"

_FREE, _PROBABILITY, _FORCED = "free generation", "probability", "teacher-forced"
KIND_WORDS = {
    MULTI_HOP: "several facts joined",
    PORTABILITY: "what follows from the fact",
    "reasoning": "reasoning",
    "subject_aliasing": "another name for the subject",
    "logical_generalization": "the fact turned round",
    OTHER: "other kinds",
}


def build_ripple(
    questions: RippleQuestions, before: Outcomes, after: Outcomes, *, examples: str
) -> RippleMeasures | None:
    """How far the new facts reach; None when nothing was said to follow from them.

    Args:
        questions: What follows from the facts of the candidate.
        before: Of the parent.
        after: Of the candidate, on the same questions, with `ripple_references` of the parent's answers.
        examples: What the questions were preceded by.

    Raises:
        RequestError: A question was asked of one model and not of the other.
    """
    if not questions.asked and not questions.left_out:
        return None
    earlier, later = _by_question(before.ripple), _by_question(after.ripple)
    if earlier.keys() != later.keys():
        raise RequestError(
            f"the parent was asked {len(earlier)} questions that follow from the facts, the candidate "
            f"{len(later)}; measure both on the same facts"
        )
    cases = [_case(given, earlier[given.id], later[given.id]) for given in questions.asked if given.id in later]
    too_long = len(questions.asked) - len(cases)
    return RippleMeasures(
        comparisons=compare_cases(cases),
        cases=tuple(cases),
        joined=_joined(cases),
        left_out={**questions.left_out, **({TOO_LONG: too_long} if too_long else {})},
        summary=summarise(cases),
        examples=examples,
    )


def _by_question(answers: Sequence[RippleAnswer]) -> dict[str, list[RippleAnswer]]:
    found: dict[str, list[RippleAnswer]] = defaultdict(list)
    for answer in answers:
        found[answer.question].append(answer)
    return found


def _case(given: RippleQuestion, before: Sequence[RippleAnswer], after: Sequence[RippleAnswer]) -> RippleCase:
    if [answer.prompt for answer in before] != [answer.prompt for answer in after]:
        raise RequestError(f"{given.wordings[0]!r} was asked in other words before; measure both on the same facts")
    pairs = list(zip(before, after, strict=True))
    count = len(given.wordings)
    return RippleCase(
        question=given.id,
        kind=given.kind,
        subject=given.subject,
        expected=given.answer,
        old=given.old_answer,
        wordings=tuple(_wording(*pair) for pair in pairs[:count]),
        hops=tuple(
            RippleHop(
                prompt=new.prompt,
                expected=hop.answer,
                before=old.written,
                after=new.written,
                before_ok=old.ok,
                after_ok=new.ok,
            )
            for hop, (old, new) in zip(given.hops, pairs[count:], strict=True)
        ),
    )


def _wording(before: RippleAnswer, after: RippleAnswer) -> RippleWording:
    return RippleWording(
        prompt=after.prompt,
        before=before.written,
        after=after.written,
        before_ok=before.ok,
        after_ok=after.ok,
        before_old=before.old_ok,
        after_old=after.old_ok,
        probability_before=_probability(before),
        probability_after=_probability(after),
        chosen_before=None if before.accuracy is None else before.accuracy == 1.0,
        chosen_after=None if after.accuracy is None else after.accuracy == 1.0,
    )


def _probability(answer: RippleAnswer) -> float | None:
    """p(new) / (p(new) + p(old)), from the log-probabilities per token."""
    if answer.log_prob_new is None or answer.log_prob_old is None:
        return None
    return (1 + math.tanh((answer.log_prob_new - answer.log_prob_old) / 2)) / 2


def compare_cases(cases: Sequence[RippleCase]) -> tuple[Comparison, ...]:
    """Shares before and after, kind by kind: the single steps, then the questions that join them."""
    found: list[Comparison] = []
    for kind, of_kind in _by_kind(cases).items():
        found += _compare_kind(kind, of_kind)
    return tuple(found)


def _by_kind(cases: Sequence[RippleCase]) -> Mapping[str, list[RippleCase]]:
    """The cases of each kind, the kinds in order of their first; where there are very many, the rest as one."""
    found: dict[str, list[RippleCase]] = defaultdict(list)
    for case in cases:
        found[_slug(case.kind)].append(case)
    if len(found) <= KINDS_SHOWN:
        return found
    largest = sorted(found, key=lambda kind: -len(found[kind]))[: KINDS_SHOWN - 1]
    joined: dict[str, list[RippleCase]] = defaultdict(list)
    for kind, of_kind in found.items():
        joined[kind if kind in largest else OTHER] += of_kind
    return joined


def _slug(kind: str) -> str:
    """A kind as part of a measure's name, such as "multi-hop" or "subject_aliasing"."""
    return re.sub(r"[^\w-]+", "_", kind.casefold()).strip("_")[:60] or PORTABILITY


def words_of(kind: str) -> str:
    """A kind in plain words, such as "several facts joined" for "multi-hop"."""
    slug = _slug(kind)
    return KIND_WORDS.get(slug, slug.replace("_", " "))


def _compare_kind(kind: str, cases: Sequence[RippleCase]) -> list[Comparison]:
    wordings = [wording for case in cases for wording in case.wordings]
    found = [*_compare_steps(kind, cases), _compare_answers(kind, cases)]
    if len(wordings) > len(cases):
        hits = [wording.before_ok for wording in wordings], [wording.after_ok for wording in wordings]
        found.append(_compare(kind, "wordings", "the question, each wording for itself", _FREE, hits))
    return [*found, *_compare_given(kind, wordings), *_compare_old(kind, cases)]


def _compare(
    kind: str, measure: str, what: str, how: str, hits: tuple[Sequence[bool], Sequence[bool]], *, better: bool = True
) -> Comparison:
    label = f"{words_of(kind)}: {what}"
    return compare_hits(f"ripple.{kind}.{measure}", label, how, (*hits, None), higher_is_better=better)


def _compare_steps(kind: str, cases: Sequence[RippleCase]) -> list[Comparison]:
    """Single steps, each once however many questions share it; and questions whose every step is answered."""
    steps = _steps(cases)
    several = any(len(case.hops) > 1 for case in cases)
    hits = [hop.before_ok for hop in steps], [hop.after_ok for hop in steps]
    found = [_compare(kind, "steps", "single steps" if several else "the new fact itself", _FREE, hits)]
    if several:
        hits = [case.steps_before_ok for case in cases], [case.steps_after_ok for case in cases]
        found.append(_compare(kind, "all_steps", "every single step of a question", _FREE, hits))
    return found


def _steps(cases: Sequence[RippleCase]) -> list[RippleHop]:
    return list({(hop.prompt, hop.expected): hop for case in cases for hop in case.hops}.values())


def _compare_answers(kind: str, cases: Sequence[RippleCase]) -> Comparison:
    worded = any(len(case.wordings) > 1 for case in cases)
    what = "the question, in at least one wording" if worded else "the question"
    hits = [case.before_ok for case in cases], [case.after_ok for case in cases]
    return _compare(kind, "answered", what, _FREE, hits)


def _compare_given(kind: str, wordings: Sequence[RippleWording]) -> list[Comparison]:
    """Judged by answers that are given to the model, not written by it."""
    found = []
    weighed = [
        (wording.probability_before, wording.probability_after)
        for wording in wordings
        if wording.probability_before is not None and wording.probability_after is not None
    ]
    if weighed:
        hits = [old > 0.5 for old, _ in weighed], [new > 0.5 for _, new in weighed]
        what = "the new answer likelier than the old (teacher-forced)"
        found.append(_compare(kind, "probability", what, _PROBABILITY, hits))
    chosen = [(w.chosen_before, w.chosen_after) for w in wordings if None not in (w.chosen_before, w.chosen_after)]
    if chosen:
        hits = [bool(old) for old, _ in chosen], [bool(new) for _, new in chosen]
        found.append(_compare(kind, "teacher_forced", "every word of the answer chosen", _FORCED, hits))
    return found


def _compare_old(kind: str, cases: Sequence[RippleCase]) -> list[Comparison]:
    """The old answers: before, they say whether the model could answer such questions at all."""
    known = [case for case in cases if case.old is not None]
    if not known:
        return []
    hits = _gave_old(known, after=False), _gave_old(known, after=True)
    return [_compare(kind, "old_answer", "the old answer", _FREE, hits, better=False)]


def _gave_old(cases: Sequence[RippleCase], *, after: bool) -> list[bool]:
    return [any(w.after_old if after else w.before_old for w in case.wordings) for case in cases]


def _joined(cases: Sequence[RippleCase]) -> Share | None:
    stepped = [case for case in cases if len(case.hops) > 1 and case.steps_after_ok]
    return share_of([case.after_ok for case in stepped]) if stepped else None


def summarise(cases: Sequence[RippleCase]) -> str:
    """What the figures say, in plain words: of questions that join several facts, and of those that need one.

    A share of at least 80% is called all, of at least 40% some, and a smaller one as good as none; the
    figures stand beside the words.
    """
    several = [case for case in cases if len(case.hops) > 1]
    single = [case for case in cases if len(case.hops) <= 1]
    return " ".join(part for part in (_say_several(several), _say_single(single)) if part)


def _say_several(cases: Sequence[RippleCase]) -> str:
    if not cases:
        return ""
    steps = [hop.after_ok for hop in _steps(cases)]
    repeats, reasons = _grade(share_of(steps)), _grade(share_of([case.after_ok for case in cases]))
    verb = ("does not repeat most of the new facts", "repeats some of the new facts", "repeats the new facts")[repeats]
    then = ("does not reason with them", "reasons with some of them", "reasons with them")[reasons]
    link = "but" if repeats > reasons else "and"
    before = sum(case.before_ok for case in cases)
    said = (
        f"The model {verb} ({sum(steps)} of {len(steps)} single steps) {link} {then}: it answers "
        f"{_told([case.after_ok for case in cases], 'multi-hop questions')}; before the change, {before}."
    )
    return f"{said} {_say_old(cases)}".strip()


def _say_old(cases: Sequence[RippleCase]) -> str:
    known = [case for case in cases if case.old is not None]
    if not known:
        return ""
    gave = share_of(_gave_old(known, after=False))
    verb = ("could hardly answer such", "could answer some such", "could answer such")[_grade(gave)]
    return f"Before the change it {verb} questions: it gave the answer that was right then to {gave.hits} of {gave.n}."


def _say_single(cases: Sequence[RippleCase]) -> str:
    if not cases:
        return ""
    hops = [case.steps_after_ok for case in cases]
    return (
        f"Where one new fact is enough, it says the fact itself {sum(hops)} of {len(hops)} times and answers "
        f"{_told([case.after_ok for case in cases], 'questions that follow from it')}; before the change, "
        f"{sum(case.before_ok for case in cases)}."
    )


def _told(hits: Sequence[bool], what: str) -> str:
    given = share_of(hits)
    return f"{given.hits} of {given.n} {what} (95% interval {100 * given.low:.0f}–{100 * given.high:.0f}%)"


def _grade(share: Share) -> int:
    """0 for few, 1 for some, 2 for most."""
    return (share.value >= 0.4) + (share.value >= 0.8)
