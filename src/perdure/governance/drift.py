"""Drift: what a version that serves gives when it is asked again, held to the limits of the policy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from perdure.governance.policy import Policy
from perdure.measuring.course import Cohort
from perdure.measuring.report import LanguageMeasures, RetentionMeasures
from perdure.measuring.shares import Comparison, Data, Difference

RETENTION, PERPLEXITY, COHORT = "retention", "perplexity", "old edits"
AGAINST_THEN, AGAINST_BASE = "when first measured", "the base"


class Finding(Data):
    """One figure of asking again, with its limit.

    Attributes:
        measure: "retention", "perplexity" or "old edits".
        subject: What was asked, in words: a capability, or which facts.
        against: What it is held against; empty where it stands alone.
        value: A difference of shares, a ratio of perplexities, or a share.
        low: Lower end of the 95% interval.
        high: Upper end.
        n: How many items were asked.
        limit: What the policy allows; None where it says nothing.
        state: "alert" when the whole interval is beyond the limit, "unclear" when part of it is, else "fine".
    """

    measure: Literal["retention", "perplexity", "old edits"]
    subject: str
    against: str = ""
    value: float
    low: float
    high: float
    n: int = Field(ge=0)
    limit: float | None = None
    state: Literal["fine", "unclear", "alert"] = "fine"


def drift(
    retention: RetentionMeasures | None,
    languages: Mapping[str, LanguageMeasures | None],
    cohorts: Sequence[Cohort],
    policy: Policy,
) -> list[Finding]:
    """Every figure of asking again, each with what the policy says of it.

    Args:
        retention: What is still answered; before is the same version when it was first measured, base the base.
        languages: The same of perplexity, by what it is held against.
        cohorts: Facts by age, asked as taught.
        policy: Whose limits hold. Facts by age are held to what was required of them when they were taught.
    """
    texts = [_language(against, found, policy) for against, found in languages.items() if found is not None]
    return [*_retention(retention, policy), *texts, *_cohorts(cohorts, policy)]


def _retention(found: RetentionMeasures | None, policy: Policy) -> Iterator[Finding]:
    if found is None:
        return
    limits = policy.retention
    yield from _both(found.overall, limits.overall_lost)
    for part in found.parts:
        name = part.name.removeprefix("retention.")
        yield from _both(part, limits.parts.get(name, limits.capability_lost))


def _both(part: Comparison, limit: float) -> Iterator[Finding]:
    yield _lost(part.label, AGAINST_THEN, part.difference, limit)
    if part.against_base is not None:
        yield _lost(part.label, AGAINST_BASE, part.against_base, limit)


def _lost(subject: str, against: str, found: Difference, limit: float) -> Finding:
    state = _state(-found.high, -found.low, limit)
    return Finding(measure=RETENTION, subject=subject, against=against, **found.model_dump(), limit=-limit, state=state)


def _language(against: str, found: LanguageMeasures, policy: Policy) -> Finding:
    limit = policy.language.perplexity_ratio
    return Finding(
        measure=PERPLEXITY,
        subject="held-out text",
        against=against,
        value=found.ratio,
        low=found.ratio_low,
        high=found.ratio_high,
        n=found.passages,
        limit=limit,
        state=_state(found.ratio_low, found.ratio_high, limit),
    )


def _cohorts(cohorts: Sequence[Cohort], policy: Policy) -> Iterator[Finding]:
    limit = policy.edits.learnt
    for cohort in cohorts:
        kept = cohort.kept
        state = _state(-kept.high, -kept.low, -limit)
        yield Finding(
            measure=COHORT,
            subject=cohort.label,
            value=kept.value,
            low=kept.low,
            high=kept.high,
            n=kept.n,
            limit=limit,
            state=state,
        )


def _state(least: float, most: float, limit: float) -> Literal["fine", "unclear", "alert"]:
    """What an interval of something of which at most `limit` is allowed says."""
    if least > limit:
        return "alert"
    return "fine" if most <= limit else "unclear"
