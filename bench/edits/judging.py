"""From what the original and the edited model did to the figures of a cell."""

import math
from collections.abc import Sequence

from bench.edits.cells import Interval, Matrices, Seconds
from bench.edits.outcomes import FactOutcomes, agreement
from bench.edits.sequence import Batch
from perdure.measuring import Outcomes, build_language
from perdure.measuring.report import MatrixMeasures, Share
from perdure.measuring.statistics import share_of


def judge_facts(original: FactOutcomes, edited: FactOutcomes, cohorts: Sequence[int]) -> dict[str, Share]:
    """Shares about the taught facts and their neighbours; those of no items are left out.

    Args:
        original: Of the frozen original.
        edited: Of the edited model.
        cohorts: Numbers of edits at which an age cohort ends.
    """
    hits = {f"{kind}.likelier": [margin > 0 for margin in found] for kind, found in edited.margins.items()}
    hits |= {f"{kind}.says": list(found) for kind, found in edited.said.items()}
    hits["neighbour.same_word"] = agreement(original, edited)
    prompts, start = hits["prompt.likelier"], 0
    for end in cohorts:
        hits[f"prompt.likelier.{start + 1}-{end}"] = prompts[start:end]
        start = end
    return {name: share_of(found) for name, found in hits.items() if found}


def judge_language(original: Outcomes, edited: Outcomes) -> Interval | None:
    """The perplexity ratio, edited / original."""
    found = build_language(original, edited)
    return None if found is None else Interval(value=found.ratio, low=found.ratio_low, high=found.ratio_high)


def worst_of(matrices: Sequence[MatrixMeasures]) -> Matrices | None:
    """The largest ratios over the measured matrices."""
    if not matrices:
        return None
    return Matrices(
        measured=len(matrices),
        sigma_ratio=max(matrix.sigma_max_delta / matrix.sigma_max_base for matrix in matrices),
        sigma_ratio_solved=max(matrix.sigma_max_solved / matrix.sigma_max_base for matrix in matrices),
        condition=max(matrix.condition_after for matrix in matrices),
        condition_ratio=max(matrix.condition_after / matrix.condition_before for matrix in matrices),
    )


def seconds_per_edit(batches: Sequence[Batch]) -> Seconds | None:
    """Seconds per edit over all batches and in the last one."""
    if not batches:
        return None
    count, last = sum(batch.facts for batch in batches), batches[-1]
    return Seconds(
        wall=sum(batch.wall for batch in batches) / count,
        cpu=sum(batch.cpu for batch in batches) / count,
        last_wall=last.wall / last.facts,
        last_cpu=last.cpu / last.facts,
    )


def finite_or_none(value: float) -> float | None:
    """The value, unless it is infinite or no number, which JSON cannot say."""
    return value if math.isfinite(value) else None
