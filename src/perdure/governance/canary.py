"""Canaries: when a candidate that answers a share of the requests goes on, is promoted, or falls back.

Measurements are looked at again and again while requests come in, so the usual intervals would raise false
alarms. What counts here is an e-value, which is valid however often one looks (Ville's inequality).
"""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Action = Literal["continue", "promote", "fall back"]


class CanaryPlan(BaseModel):
    """How a candidate is brought in: shares of the requests, how long each is held, and what decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[float, ...] = Field((0.05, 0.2, 0.5), min_length=1, description="shares of requests, rising")
    hold_seconds: float = Field(600.0, ge=0, description="how long each share is held at least")
    hold_requests: int = Field(100, ge=1, description="requests that the candidate answers at each share at least")
    success: float = Field(0.02, gt=0, lt=1, description="goes on when fewer of its requests than this surely fail")
    failure: float = Field(0.05, gt=0, lt=1, description="falls back when more of its requests than this surely fail")
    slower: float | None = Field(None, gt=0, description="falls back when slower than this many times the stable one")
    sure: float = Field(0.95, gt=0.5, lt=1, description="how sure 'surely' is")

    @field_validator("weights")
    @classmethod
    def _rising(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < weight < 1 for weight in weights) or list(weights) != sorted(set(weights)):
            raise ValueError("weights are shares between 0 and 1, each larger than the one before")
        return weights

    @model_validator(mode="after")
    def _success_below_failure(self) -> "CanaryPlan":
        if self.success > self.failure:
            raise ValueError("success must not allow more failures than failure does")
        return self


class CanaryMeasures(BaseModel):
    """What was seen of a canary.

    Attributes:
        weight: The share of requests that the candidate gets now.
        held_seconds: How long it has had this share.
        held_requests: Requests that it answered at this share.
        requests: Requests that it answered since the canary began.
        failures: Those of them that failed.
        seconds: Its usual time for a request, if known.
        stable_seconds: That of the stable version over the same time, if known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(gt=0, lt=1)
    held_seconds: float = Field(ge=0)
    held_requests: int = Field(ge=0)
    requests: int = Field(ge=0)
    failures: int = Field(ge=0)
    seconds: float | None = Field(None, gt=0)
    stable_seconds: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _counts(self) -> "CanaryMeasures":
        if not max(self.failures, self.held_requests) <= self.requests:
            raise ValueError("failures and held requests are among all requests")
        return self


class Decision(BaseModel):
    """What to do with a canary now: the action, the candidate's share from then on, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    weight: float
    reason: str


def decide(plan: CanaryPlan, seen: CanaryMeasures) -> Decision:
    """Whether a canary goes on (and with which share), is promoted, or falls back."""
    needed = math.log(1 / (1 - plan.sure))
    said = f"{seen.failures} of {seen.requests} requests failed"
    if log_evidence_above(seen.failures, seen.requests, plan.failure) >= needed:
        return Decision(action="fall back", weight=0.0, reason=f"{said}, surely more than {plan.failure:.1%}")
    if seen.held_requests < plan.hold_requests or seen.held_seconds < plan.hold_seconds:
        held = f"{seen.held_requests} of {plan.hold_requests} requests, {seen.held_seconds:.0f} of"
        return _stay(seen, f"held for {held} {plan.hold_seconds:.0f} s")
    if _slower(plan, seen):
        return Decision(action="fall back", weight=0.0, reason=f"more than {plan.slower:g} times as slow")
    if log_evidence_below(seen.failures, seen.requests, plan.success) < needed:
        return _stay(seen, f"{said}; not surely fewer than {plan.success:.1%} yet")
    further = [weight for weight in plan.weights if weight > seen.weight]
    reason = f"{said}, surely fewer than {plan.success:.1%}"
    if further:
        return Decision(action="continue", weight=further[0], reason=reason)
    return Decision(action="promote", weight=1.0, reason=reason)


def log_evidence_above(failures: int, requests: int, share: float) -> float:
    """The logarithm of the e-value against "at most `share` of the requests fail".

    The likelihood ratio of a share q against p = `share`, averaged over q uniform on (p, 1):
    e = 1/(1−p) · ∫_p^1 (q/p)^k ((1−q)/(1−p))^(n−k) dq (Robbins, Annals of Mathematical Statistics 41, 1970, with
    a uniform mixture). Under any share up to p it is a supermartingale of mean at most 1, so it ever reaches
    1/α with probability at most α.
    """
    from scipy.stats import beta

    k, n = failures, requests
    return _log_mixture(k, n, share) + float(beta.logsf(share, k + 1, n - k + 1)) - math.log1p(-share)


def log_evidence_below(failures: int, requests: int, share: float) -> float:
    """The logarithm of the e-value against "at least `share` of the requests fail": q uniform on (0, p)."""
    from scipy.stats import beta

    k, n = failures, requests
    return _log_mixture(k, n, share) + float(beta.logcdf(share, k + 1, n - k + 1)) - math.log(share)


def _log_mixture(k: int, n: int, share: float) -> float:
    """log of B(k+1, n−k+1) / (p^k (1−p)^(n−k))."""
    beta = math.lgamma(k + 1) + math.lgamma(n - k + 1) - math.lgamma(n + 2)
    return beta - k * math.log(share) - (n - k) * math.log1p(-share)


def _stay(seen: CanaryMeasures, reason: str) -> Decision:
    return Decision(action="continue", weight=seen.weight, reason=reason)


def _slower(plan: CanaryPlan, seen: CanaryMeasures) -> bool:
    if plan.slower is None or seen.seconds is None or seen.stable_seconds is None:
        return False
    return seen.seconds > plan.slower * seen.stable_seconds
