"""Two models' outcomes as the report shows them: shares before and after, and paired differences."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from perdure.errors import RequestError
from perdure.measuring.outcomes import Answer, EditAnswer, Outcomes, Passage, TaskHits
from perdure.measuring.report import (
    Case,
    Comparison,
    EditMeasures,
    LanguageMeasures,
    RetentionMeasures,
)
from perdure.measuring.statistics import paired_difference, perplexity, perplexity_ratio, share_of

LOST_LIMIT = 50

_KINDS = {
    "prompt": ("the new fact", "asked as written"),
    "paraphrase": ("the new fact", "asked in other words"),
    "neighbour": ("the right answer", "asked a question nearby"),
}
_Hits = Sequence[bool]


@dataclass(frozen=True)
class _Triple:
    """One question, answered before, after, and by the base where it is compared as well."""

    before: EditAnswer
    after: EditAnswer
    base: EditAnswer | None


@dataclass(frozen=True)
class _Way:
    """A way to judge the answer to a question.

    Attributes:
        words: The label; filled with what should be said and how it was asked.
        applies: Whether the question can be judged so.
        hit: Whether the answer is right.
    """

    name: str
    words: str
    how: str
    applies: Callable[[EditAnswer], bool]
    hit: Callable[[EditAnswer], bool]


def _is_likelier(answer: EditAnswer) -> bool:
    assert answer.log_prob_new is not None and answer.log_prob_old is not None
    new, old = answer.log_prob_new, answer.log_prob_old
    return old > new if answer.kind == "neighbour" else new > old


_WAYS = (
    _Way(
        "generation_contains",
        "says {what}, {asked}",
        "free generation",
        lambda answer: answer.expected is not None,
        lambda answer: answer.contains,
    ),
    _Way(
        "generation_exact",
        "says {what} and nothing else, {asked}",
        "free generation",
        lambda answer: answer.expected is not None,
        lambda answer: answer.exact,
    ),
    _Way(
        "probability",
        "finds {what} likelier than {other}, {asked}",
        "probability",
        lambda answer: answer.log_prob_new is not None and answer.log_prob_old is not None,
        _is_likelier,
    ),
    _Way(
        "teacher_forced",
        "would choose every word of {what}, {asked}",
        "teacher-forced",
        lambda answer: answer.accuracy is not None,
        lambda answer: answer.accuracy == 1.0,
    ),
)


def compare_hits(
    name: str, label: str, how: str, hits: tuple[_Hits, _Hits, _Hits | None], *, higher_is_better: bool = True
) -> Comparison:
    """One measure on the same items before, after, and, where given, of the base."""
    before, after, base = hits
    return Comparison(
        name=name,
        label=label,
        how=how,
        before=share_of(before),
        after=share_of(after),
        difference=paired_difference(before, after),
        base=None if base is None else share_of(base),
        against_base=None if base is None else paired_difference(base, after),
        higher_is_better=higher_is_better,
    )


def build_edit_measures(before: Outcomes, after: Outcomes, base: Outcomes | None = None) -> EditMeasures | None:
    """How well the facts were learnt; None when no fact was asked.

    Args:
        before: Of the parent.
        after: Of the candidate, on the same facts, with `references_from` the parent's answers.
        base: Of the base, where it is not the parent.

    Raises:
        RequestError: A question was asked of one model and not of another, or against another old answer.
    """
    triples = _match(before, after, base)
    if not triples:
        return None
    comparisons = []
    for kind in _KINDS:
        of_kind = [triple for triple in triples if triple.after.kind == kind]
        comparisons += [found for way in _WAYS if (found := _compare_way(kind, way, of_kind))]
    nearby = [triple for triple in triples if triple.after.kind == "neighbour"]
    if nearby:
        comparisons.append(_compare_unchanged(nearby))
    return EditMeasures(
        facts=len({triple.after.fact for triple in triples}),
        comparisons=tuple(comparisons),
        cases=tuple(_case(triple) for triple in triples),
    )


def _match(before: Outcomes, after: Outcomes, base: Outcomes | None) -> list[_Triple]:
    earlier = {answer.question: answer for answer in before.edits}
    first = {answer.question: answer for answer in base.edits} if base and base.edits else None
    triples = []
    for answer in after.edits:
        triple = _Triple(
            _find(earlier, answer, "the parent"), answer, _find(first, answer, "the base") if first else None
        )
        triples.append(triple)
    if len(earlier) > len(triples):
        raise RequestError(
            f"the parent was asked {len(earlier)} questions, the candidate {len(triples)}; "
            "measure both on the same facts"
        )
    return triples


def _find(answers: dict[tuple[str, str, str], EditAnswer], answer: EditAnswer, whose: str) -> EditAnswer:
    found = answers.get(answer.question)
    if found is None:
        raise RequestError(f"{answer.prompt!r} was not asked of {whose}; measure both on the same facts")
    if (found.expected, found.rival) != (answer.expected, answer.rival):
        raise RequestError(
            f"{answer.prompt!r} was judged against another old answer in {whose}: {found.rival!r}, not "
            f"{answer.rival!r}. Measure again with references_from(the parent's answers)"
        )
    return found


def _compare_way(kind: str, way: _Way, triples: Sequence[_Triple]) -> Comparison | None:
    chosen = [triple for triple in triples if way.applies(triple.after) and way.applies(triple.before)]
    if not chosen:
        return None
    what, asked = _KINDS[kind]
    other = "the new fact" if kind == "neighbour" else "the old one"
    bases = [triple.base for triple in chosen if triple.base is not None and way.applies(triple.base)]
    hits = (
        [way.hit(triple.before) for triple in chosen],
        [way.hit(triple.after) for triple in chosen],
        [way.hit(answer) for answer in bases] if len(bases) == len(chosen) else None,
    )
    label = way.words.format(what=what, asked=asked, other=other)
    return compare_hits(f"edits.{kind}.{way.name}", label, way.how, hits)


def _compare_unchanged(triples: Sequence[_Triple]) -> Comparison:
    same = [triple.after.written == triple.before.written for triple in triples]
    label = "writes the same as before, asked a question nearby"
    return compare_hits("edits.neighbour.unchanged", label, "free generation", ([True] * len(same), same, None))


def _case(triple: _Triple) -> Case:
    before, after = triple.before, triple.after
    return Case(
        fact=after.fact,
        subject=after.subject,
        kind=after.kind,
        prompt=after.prompt,
        expected=after.expected if after.expected_is_given else None,
        before=before.written,
        after=after.written,
        before_ok=before.contains,
        after_ok=after.contains,
        probability_before=preference(before),
        probability_after=preference(after),
    )


def preference(answer: EditAnswer) -> float | None:
    """p(new) / (p(new) + p(old)), from the log-probabilities per token; None where one of them is not known."""
    if answer.log_prob_new is None or answer.log_prob_old is None:
        return None
    return (1 + math.tanh((answer.log_prob_new - answer.log_prob_old) / 2)) / 2


def build_retention(before: Outcomes, after: Outcomes, base: Outcomes | None = None) -> RetentionMeasures | None:
    """What the model could do and still can, per part and over all items; None when nothing was asked.

    Raises:
        RequestError: The outcomes are of different suites.
    """
    if not after.retention:
        return None
    first = base if base and base.retention else None
    models = (before, after, *([first] if first else []))
    _check_suites(models)
    _check_parts(models)
    parts = [_compare_part(part, before, after, first) for part in after.retention]
    old, new, oldest = _pool(before), _pool(after), _pool(first) if first else None
    lost = _lost(before, after)
    return RetentionMeasures(
        overall=compare_hits("retention.overall", "everything it was asked", "free generation", (old, new, oldest)),
        parts=tuple(parts),
        lost=tuple(lost[:LOST_LIMIT]),
        lost_count=len(lost),
        gained=sum(now and not then for then, now in zip(old, new, strict=True)),
        kept=share_of([now for then, now in zip(old, new, strict=True) if then]),
        kept_of_base=share_of([now for then, now in zip(oldest, new, strict=True) if then]) if oldest else None,
    )


def _compare_part(part: str, before: Outcomes, after: Outcomes, base: Outcomes | None) -> Comparison:
    old, new = (_hits(outcomes.retention[part]) for outcomes in (before, after))
    oldest = _hits(base.retention[part]) if base else None
    return compare_hits(f"retention.{part}", label_of(part), "free generation", (old, new, oldest))


def label_of(part: str) -> str:
    """A part of the retention suite in plain words."""
    known = {
        "facts.prompt": "facts of the world",
        "facts.paraphrase": "facts of the world, in other words",
        "instructions": "plain instructions",
    }
    group, _, name = part.partition(".")
    words = f"in context: {name}" if group == "functions" else part.replace(".", ": ")
    return known.get(part, words.replace("_", " "))


def _lost(before: Outcomes, after: Outcomes) -> list[str]:
    """Items right before and wrong after, in words, the parts in turn so that each is seen."""
    found = []
    for part, answers in after.retention.items():
        pairs = zip(before.retention[part], answers, strict=True)
        gone = [(then, now) for then, now in pairs if then.ok and not now.ok]
        found += [(turn, _tell_loss(part, *pair)) for turn, pair in enumerate(gone)]
    return [words for _, words in sorted(found, key=lambda entry: entry[0])]


def _tell_loss(part: str, then: Answer, now: Answer) -> str:
    task = f"{part.partition('.')[2].replace('_', ' ')} of " if part.startswith("functions.") else ""
    return f"{task}{then.item}: before '{then.written}', now '{now.written}'"


def build_language(before: Outcomes, after: Outcomes, base: Outcomes | None = None) -> LanguageMeasures | None:
    """Perplexity before and after on the same passages; None when it was not measured.

    Raises:
        RequestError: The outcomes are of different suites or tokenizers.
    """
    if not after.language:
        return None
    first = base if base and base.language else None
    models = (before, after, *([first] if first else []))
    _check_suites(models)
    tokens = [passage.tokens for passage in after.language]
    if any([passage.tokens for passage in model.language] != tokens for model in models):
        raise RequestError(
            "the passages have other tokens before and after; perplexities of different tokenizers do not compare"
        )
    ratio = perplexity_ratio(_nll(before.language), _nll(after.language), tokens)
    return LanguageMeasures(
        passages=len(tokens),
        tokens=sum(tokens),
        perplexity_before=perplexity(_nll(before.language), tokens),
        perplexity_after=perplexity(_nll(after.language), tokens),
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        perplexity_base=perplexity(_nll(first.language), tokens) if first else None,
        ratio_to_base=perplexity_ratio(_nll(first.language), _nll(after.language), tokens).value if first else None,
    )


def build_harness(before: Outcomes, after: Outcomes, base: Outcomes | None = None) -> tuple[Comparison, ...]:
    """lm-eval tasks that all models were asked, on the items that all of them have."""
    earlier = {_task_key(task): task for task in before.harness}
    first = {_task_key(task): task for task in base.harness} if base else {}
    pairs = [(earlier[_task_key(task)], task) for task in after.harness if _task_key(task) in earlier]
    return tuple(_compare_task(old, new, first.get(_task_key(new))) for old, new in pairs)


def _compare_task(old: TaskHits, new: TaskHits, base: TaskHits | None) -> Comparison:
    tasks = (old, new, *([base] if base else []))
    items = [item for item in new.hits if all(item in task.hits for task in tasks)]
    hits = [[task.hits[item] for item in items] for task in tasks]
    way = "" if new.filter == "none" else f".{new.filter}"
    return compare_hits(
        f"harness.{new.task}.{new.metric}{way}",
        f"lm-eval {new.task}: {new.metric}{way.replace('.', ', ')}",
        new.how,
        (hits[0], hits[1], hits[2] if base else None),
        higher_is_better=new.higher_is_better,
    )


def _task_key(task: TaskHits) -> tuple[str, str, str]:
    return task.task, task.metric, task.filter


def _check_suites(models: Sequence[Outcomes]) -> None:
    if len({model.suite_id for model in models}) > 1:
        raise RequestError("outcomes of different suites do not compare; measure every version on the same suite")


def _check_parts(models: Sequence[Outcomes]) -> None:
    shapes = {tuple((part, len(answers)) for part, answers in model.retention.items()) for model in models}
    if len(shapes) > 1:
        raise RequestError("the models were asked different parts of the suite; measure every version alike")


def _hits(answers: Sequence[Answer]) -> list[bool]:
    return [answer.ok for answer in answers]


def _pool(outcomes: Outcomes) -> list[bool]:
    return _hits(list(chain.from_iterable(outcomes.retention.values())))


def _nll(passages: Sequence[Passage]) -> list[float]:
    return [passage.nll for passage in passages]
