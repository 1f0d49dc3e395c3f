"""Gates on concepts found without labels: those that somebody protects, and no other."""

import watched_concepts_sample as sample
from perdure.governance import default_policy_text, judge, parse_policy
from perdure.measuring.report import Report
from shops import LAX

POLICY = parse_policy(default_policy_text())


def gates(watched, policy=POLICY):
    report = Report(version="v", version_id="0" * 64, parent="v0", base="v0", model="m", request={}, watched=watched)
    return {gate.gate: gate for gate in judge(report, policy).verdicts if "protected" in gate.gate}


def watched(weights, before=sample.BEFORE, after=sample.AFTER, base=None):
    return sample.watched(before, after, base, weights=weights)


def test_a_protected_concept_that_is_lost_fails_and_one_that_is_kept_passes():
    found = gates(watched({"c2": 3.0, "c3": 1.0}))
    assert found["protected concept: How do I top up by bank transfer?"].verdict == "pass"
    lost = found["protected concept: My card was declined in a shop"]
    assert lost.verdict == "fail"
    assert "a loss of at most 10 points is allowed" in lost.reason


def test_what_nobody_protects_is_not_judged():
    assert gates(watched({})) == {}


def test_the_base_counts_as_well():
    found = gates(watched({"c1": 3.0}, before=(40,) * 6, after=(40,) * 6, base=(57,) * 6))
    assert found["protected concept: Where is my new card?"].verdict == "pass"
    assert found["protected concept: Where is my new card? (against the base)"].verdict == "fail"


def test_without_a_limit_there_is_no_gate():
    assert gates(watched({"c3": 3.0}), policy=parse_policy(LAX)) == {}
    some = parse_policy(LAX + "[concepts]\nmean_lost=0.1\nset_lost=0.2\n")
    assert gates(watched({"c3": 3.0}), policy=some) == {}
