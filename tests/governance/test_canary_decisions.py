"""When a canary goes on, is promoted or falls back; the evidence checked by hand and by simulation."""

import math
import random

import pytest
from pydantic import ValidationError

from perdure.governance import CanaryMeasures, CanaryPlan, decide
from perdure.governance.canary import log_evidence_above, log_evidence_below

PLAN = CanaryPlan(weights=(0.1, 0.5), hold_seconds=60, hold_requests=100, success=0.02, failure=0.05)


def seen(failures, requests, **more):
    return CanaryMeasures(**{
        "weight": 0.1, "held_seconds": 60, "held_requests": min(100, requests), "requests": requests,
        "failures": failures, **more,
    })  # fmt: skip


def test_the_evidence_of_one_request_by_hand():
    # A failure: ∫_p^1 q/p dq / (1−p) = (1+p) / (2p). A success, from below: ∫_0^p (1−q)/(1−p) dq/p = (1−p/2) / (1−p).
    assert log_evidence_above(1, 1, 0.2) == pytest.approx(math.log(1.2 / 0.4))
    assert log_evidence_below(0, 1, 0.2) == pytest.approx(math.log((1 - 0.1) / 0.8))
    assert log_evidence_above(0, 0, 0.3) == log_evidence_below(0, 0, 0.3) == pytest.approx(0.0)


@pytest.mark.parametrize(("k", "n", "p"), [(3, 40, 0.05), (0, 200, 0.02), (17, 90, 0.3)])
def test_the_evidence_is_the_integral(k, n, p):
    def ratio(q):
        return (q / p) ** k * ((1 - q) / (1 - p)) ** (n - k)

    steps = 200_000
    above = sum(ratio(p + (1 - p) * (j + 0.5) / steps) for j in range(steps)) / steps
    below = sum(ratio(p * (j + 0.5) / steps) for j in range(steps)) / steps
    assert log_evidence_above(k, n, p) == pytest.approx(math.log(above), abs=1e-6)
    assert log_evidence_below(k, n, p) == pytest.approx(math.log(below), abs=1e-6)


def test_looking_after_every_request_raises_few_false_alarms():
    """Of 400 canaries at exactly the limit, looked at 500 times each, at most 5% may ever fall back."""
    chance, alarms = random.Random(0), 0
    for _ in range(400):
        failures = 0
        for n in range(1, 501):
            failures += chance.random() < PLAN.failure
            if log_evidence_above(failures, n, PLAN.failure) >= math.log(20):
                alarms += 1
                break
    assert alarms <= 0.05 * 400


@pytest.mark.parametrize(
    ("found", "action", "weight", "words"),
    [
        (seen(0, 20), "continue", 0.1, "held for 20 of 100 requests"),
        (seen(0, 400, held_seconds=5), "continue", 0.1, "5 of 60 s"),
        (seen(0, 100), "continue", 0.1, "not surely fewer than 2.0% yet"),
        (seen(0, 300), "continue", 0.5, "surely fewer than 2.0%"),
        (seen(0, 300, weight=0.5), "promote", 1.0, "0 of 300 requests failed"),
        (seen(8, 20), "fall back", 0.0, "surely more than 5.0%"),
        (seen(8, 20, held_seconds=0), "fall back", 0.0, "8 of 20 requests failed"),
        (seen(2, 20), "continue", 0.1, "held"),
        (seen(15, 500), "continue", 0.1, "not surely fewer"),
    ],
)
def test_decisions(found, action, weight, words):
    made = decide(PLAN, found)
    assert (made.action, made.weight) == (action, weight)
    assert words in made.reason


def test_a_slow_candidate_falls_back_after_its_hold():
    plan = PLAN.model_copy(update={"slower": 1.5})
    times = {"seconds": 3.2, "stable_seconds": 2.0}
    assert decide(plan, seen(0, 300, **times)).reason == "more than 1.5 times as slow"
    assert decide(plan, seen(0, 50, **times)).action == "continue"
    assert decide(plan, seen(0, 300, seconds=2.9, stable_seconds=2.0)).action == "continue"
    assert decide(PLAN, seen(0, 300, **times)).weight == 0.5


def test_more_failures_never_help():
    order = {"promote": 2, "continue": 1, "fall back": 0}
    for weight in (0.1, 0.5):
        made = [decide(PLAN, seen(k, 600, weight=weight)) for k in range(0, 120)]
        ranks = [(order[one.action], one.weight) for one in made]
        assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(
    "settings",
    [{"weights": ()}, {"weights": (0.5, 0.1)}, {"weights": (0.1, 0.1)}, {"weights": (0.0,)}, {"weights": (1.0,)},
     {"success": 0.1, "failure": 0.05}, {"failure": 1.0}, {"hold_requests": 0}, {"sure": 0.4}, {"speed": 1}],
)  # fmt: skip
def test_plans_that_make_no_sense(settings):
    with pytest.raises(ValidationError):
        CanaryPlan(**settings)


@pytest.mark.parametrize("wrong", [{"failures": 9, "requests": 8}, {"held_requests": 9, "requests": 8, "failures": 0}])
def test_measures_that_make_no_sense(wrong):
    with pytest.raises(ValidationError):
        seen(**{"failures": 0, "requests": 8, **wrong})
