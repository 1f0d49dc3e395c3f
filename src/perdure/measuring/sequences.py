"""A long sequence of edits as it goes: what is kept of the facts by age, and how far the weights have moved."""

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.measuring.course import Cohort, Growth
from perdure.measuring.outcomes import EditAnswer
from perdure.measuring.report import MatrixMeasures
from perdure.measuring.statistics import share_of
from perdure.models.scoring import score_targets
from perdure.progress import Progress, counting, silent
from perdure.requests import Fact

_COHORTS = 10


def growth_of(matrices: Sequence[MatrixMeasures], facts: int) -> list[Growth]:
    """The course of the weights at one time, from the measures of the changed matrices.

    Args:
        matrices: The measures, of the accumulated change as it is applied.
        facts: Facts taught since the base.
    """
    return [
        Growth(
            facts=facts,
            matrix=found.name,
            layer=found.layer,
            sigma_max=found.sigma_max_delta,
            sigma_ratio=found.sigma_max_delta / found.sigma_max_base if found.sigma_max_base else 0.0,
            condition_ratio=found.condition_after / found.condition_before,
            norm_ratio=found.relative_norm,
        )
        for found in matrices
    ]


def knows(model: Any, tokenizer: Any, facts: Sequence[Fact], progress: Progress = silent) -> list[bool]:
    """Whether the model answers each fact as taught, asked as written; teacher-forced, for speed.

    Where the old answer is known, the new one must be more probable per token. Where it is not, every token of
    the new answer must be the most probable one.
    """
    pairs = [(fact.prompt, fact.target_new) for fact in facts]
    known = [(fact.prompt, fact.target_true) for fact in facts if fact.target_true]
    done = counting(progress, "asking earlier facts again", len(pairs) + len(known))
    scores = score_targets(model, tokenizer, [*pairs, *known], on_done=done)
    old = dict(zip(known, scores[len(pairs) :], strict=True))
    return [
        new.mean_log_prob > old[fact.prompt, fact.target_true].mean_log_prob if fact.target_true else all(new.hits)
        for fact, new in zip(facts, scores[: len(pairs)], strict=True)
    ]


def knew(answers: Sequence[EditAnswer], facts: Sequence[Fact]) -> dict[str, bool]:
    """The same judgement as `knows`, by fact, from answers that were measured already.

    Where a fact has no old answer, an answer was compared with what the model wrote before: that says less.
    """
    asked = {fact.id: fact for fact in facts}
    return {
        answer.fact: answer.log_prob_new > answer.log_prob_old
        if asked[answer.fact].target_true and answer.log_prob_new is not None and answer.log_prob_old is not None
        else answer.accuracy == 1.0
        for answer in answers
        if answer.kind == "prompt" and answer.fact in asked
    }


def in_force(facts: Sequence[Fact]) -> list[Fact]:
    """The facts that no later one overwrites: of those with the same prompt, the last."""
    last = {fact.prompt: fact for fact in facts}
    return [fact for fact in facts if last[fact.prompt] is fact]


def by_age(hits: Sequence[bool], taught: int, *, first: int = 0) -> list[Cohort]:
    """At most ten cohorts of neighbouring facts, the oldest first.

    Args:
        hits: Whether each fact is kept, in the order in which they were taught.
        taught: Facts taught since the base when they were asked.
        first: Facts taught before the first of these.
    """
    size = max(1, -(-len(hits) // _COHORTS))
    return [
        Cohort(
            taught=taught,
            label=f"facts {first + start + 1}–{first + min(start + size, len(hits))}",
            kept=share_of(hits[start : start + size]),
        )
        for start in range(0, len(hits), size)
    ]


def cohorts_of(
    groups: Mapping[str, Sequence[Fact]], before: Mapping[str, bool], after: Mapping[str, bool]
) -> list[Cohort]:
    """A cohort a group, with what is kept of it and what was before.

    Args:
        groups: From a label, such as a version's name, to its facts that are still in force.
        before: By a fact's id, whether the parent knew it.
        after: By a fact's id, whether the version does.
    """
    taught = sum(map(len, groups.values()))
    return [
        Cohort(
            taught=taught,
            label=label,
            kept=share_of([after[fact.id] for fact in facts]),
            before=share_of([before[fact.id] for fact in facts]),
        )
        for label, facts in groups.items()
        if facts
    ]
