"""Drift findings and curves: states by hand, limits of the policy, figures of stored reports."""

import math

import pytest

from perdure.governance import parse_policy
from perdure.governance.curves import curves, figures_of
from perdure.governance.drift import drift
from perdure.measuring.course import Cohort
from perdure.measuring.report import Comparison, LanguageMeasures, RetentionMeasures
from perdure.measuring.shares import Difference
from perdure.measuring.statistics import wilson

POLICY = parse_policy(
    "[edits]\nlearnt=0.9\nasked_differently=0\nneighbours_lost=1\n"
    "[retention]\noverall_lost=0.02\ncapability_lost=0.1\nparts={strict=0.01}\n"
    "[language]\nperplexity_ratio=1.02\n[weights]\ncondition_ratio=10\nnorm_ratio=0.5\n[budget]\nfacts=100\n"
)


def comparison(name, low, high, base=None):
    found = Difference(value=(low + high) / 2, low=low, high=high, n=50)
    against = None if base is None else Difference(value=sum(base) / 2, low=base[0], high=base[1], n=50)
    share = wilson(25, 50)
    return Comparison(name=f"retention.{name}", label=name, how="free generation", before=share, after=share,
                      difference=found, against_base=against)  # fmt: skip


def language(low, high):
    return LanguageMeasures(passages=9, tokens=99, perplexity_before=9, perplexity_after=9, ratio=(low + high) / 2,
                            ratio_low=low, ratio_high=high)  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(-0.01, 0.01, "fine"), (-0.02, 0.0, "fine"), (-0.05, 0.0, "unclear"), (-0.05, -0.03, "alert")],
)
def test_a_loss_is_held_to_its_limit(low, high, state):
    found = drift(RetentionMeasures(overall=comparison("overall", low, high), parts=()), {}, (), POLICY)
    assert [(one.state, one.limit, one.against) for one in found] == [(state, -0.02, "when first measured")]


def test_parts_have_their_own_limits_and_the_base_counts():
    parts = (comparison("strict", -0.05, -0.03), comparison("loose", -0.05, -0.03, base=(-0.3, -0.2)))
    found = drift(RetentionMeasures(overall=comparison("overall", 0, 0), parts=parts), {}, (), POLICY)
    states = {(one.subject, one.against): one.state for one in found}
    assert states == {
        ("overall", "when first measured"): "fine",
        ("strict", "when first measured"): "alert",
        ("loose", "when first measured"): "fine",
        ("loose", "the base"): "alert",
    }


def test_perplexity_and_old_edits():
    languages = {"now": language(1.0, 1.01), "base": language(1.03, 1.05), "none": None}
    cohorts = [Cohort(taught=400, label=label, kept=wilson(hits, 200)) for label, hits in (("old", 100), ("new", 200))]
    found = drift(None, languages, cohorts, POLICY)
    assert [(one.measure, one.against or one.subject, one.state) for one in found] == [
        ("perplexity", "now", "fine"), ("perplexity", "base", "alert"),
        ("old edits", "old", "alert"), ("old edits", "new", "fine"),
    ]  # fmt: skip


def stored(**more):
    matrix = {"name": "a", "relative_norm": 0.2, "condition_before": 10.0, "condition_after": 30.0}
    singular = {"name": "b", "relative_norm": 0.6, "condition_before": None, "condition_after": 5.0}
    change = {"value": -0.01, "low": -0.02, "high": 0.0}
    cohorts = [
        {"label": "v1", "kept": {"hits": 6, "n": 8}, "before": {"hits": 8, "n": 8}},
        {"label": "v2", "kept": {"hits": 1, "n": 1}, "before": {"hits": 0, "n": 1}},
        {"label": "facts 1–8", "kept": {"hits": 0, "n": 8}, "before": None},
    ]
    report = {
        "version": "v2",
        "retention": {"overall": {"difference": change, "against_base": None}},
        "language": {"ratio": 1.01, "ratio_low": 1.0, "ratio_high": 1.02, "ratio_to_base": 1.10},
        "matrices": [matrix, singular],
        "spent": {"facts": 9},
        "course": {"cohorts": cohorts},
    }
    return {**report, **more}


def test_the_figures_of_a_stored_report():
    found = figures_of(stored())
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(
        {"retention": -0.01, "perplexity": 1.10, "condition": 3.0, "norm": 0.6, "edits": 9, "old_edits": 0.75}
    )
    assert found["perplexity"].low == pytest.approx(1.10 / 1.01)
    assert found["old_edits"].low == pytest.approx(wilson(6, 8).low)
    assert figures_of({"version": "v0"}) == {}
    assert "retention" not in figures_of(
        stored(retention={"overall": {"difference": {"value": math.nan, "low": 0, "high": 0}}})
    )


def test_curves_have_the_limits_of_the_policy():
    found = {curve.name: curve for curve in curves([("v1", stored(spent={"facts": 3})), ("v2", stored())], POLICY)}
    limits = {name: curve.limit for name, curve in found.items()}
    assert limits == {
        "retention": -0.02, "perplexity": 1.02, "condition": 10.0, "norm": 0.5, "edits": 100, "old_edits": 0.9,
    }  # fmt: skip
    assert found["edits"].points[0][1].value == 3
    beyond = {name: curve.beyond for name, curve in found.items() if curve.beyond}
    assert beyond == {"perplexity": ("v1", "v2"), "norm": ("v1", "v2"), "old_edits": ("v1", "v2")}
    assert curves([], POLICY) == []
