"""Budgets since the base, limits of single capabilities, limits on skills, and policies in plain words."""

import math

import pytest
from test_gates import comparison

from perdure.errors import SettingError
from perdure.governance import default_policy_text, explain, judge, parse_policy, uses
from perdure.governance.budget import BudgetLimits, norm_growth
from perdure.measuring.report import MatrixMeasures, Report, RetentionMeasures, Spent
from perdure.measuring.skills import Skill, SkillMeasures
from shops import LAX


def matrix(name, norm, relative, ratio=1.5):
    return MatrixMeasures(
        name=name, layer=1, shape=(2, 2), rank=1, norm=norm, relative_norm=relative, sigma_max_base=1,
        sigma_max_delta=1, sigma_max_solved=1, condition_before=10, condition_after=10 * ratio, singular_values=(1,),
        singular_values_solved=(1,),
    )  # fmt: skip


def report(**more):
    return Report(version="v3", version_id="0" * 64, parent="v2", base="v0", model="m", request={}, **more)


def budget(text, **more):
    policy = parse_policy(f"{LAX}\n[budget]\n{text}\n")
    return {
        gate.gate: (gate.verdict, gate.reason)
        for gate in judge(report(**more), policy).verdicts
        if gate.gate.startswith("budget")
    }


def skills(before, *rows):
    found = tuple(Skill(name=name, verdict=verdict, shift=shift) for name, verdict, shift in rows)
    return SkillMeasures(id="x", before=before, after="v3", heads=(), settings={}, skills=found)


def test_norm_growth_is_that_of_all_changed_matrices_together():
    # ‖ΔW‖ 3 and 4 on matrices of norm 30 and 40: 5 over 50.
    assert norm_growth(report(matrices=(matrix("a", 3, 0.1), matrix("b", 4, 0.1)))) == pytest.approx(0.1)
    assert norm_growth(report()) == 0.0


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("facts = 30", "pass"), ("facts = 29", "fail"), ("versions = 3", "pass"), ("versions = 2", "fail"),
        ("tasks = 2", "pass"), ("tasks = 1", "fail"), ("norm_growth = 0.11", "pass"), ("norm_growth = 0.09", "fail"),
        ("condition_ratio = 1.5", "pass"), ("condition_ratio = 1.4", "fail"), ("flops = 1e15", "pass"),
        ("flops = 9e14", "fail"), ("shift = 0.4", "pass"), ("shift = 0.3", "fail"),
    ],
)  # fmt: skip
def test_each_part_of_the_budget(text, verdict):
    ((found, _reason),) = budget(
        text,
        spent=Spent(versions=3, facts=30, tasks=2, flops=1e15),
        matrices=(matrix("a", 3, 0.1),),
        skills=skills("v0", ("past", "kept", 0.4), ("upper", "untold", None)),
    ).values()
    assert found == verdict


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("facts = 3", {}, "measure the version again"),
        ("flops = 3", {"spent": Spent(versions=1, facts=1, tasks=1)}, "not every training noted it"),
        ("shift = 1", {}, "were not compared with v0"),
        ("shift = 1", {"skills": skills("v2", ("past", "kept", 0.1))}, "were not compared with v0"),
        ("shift = 1", {"skills": skills("v0", ("past", "untold", None))}, "no skill's vector"),
        ("condition_ratio = 9", {"matrices": (matrix("a", 1, 0.1, math.inf),)}, "singular"),
    ],
)
def test_what_is_not_known_is_inconclusive(text, more, words):
    ((verdict, reason),) = budget(text, **more).values()
    assert verdict == "inconclusive" and words in reason


def test_how_much_is_spent():
    limits = BudgetLimits(facts=40, versions=4, tasks=0)
    found = {use.name: use.share for use in uses(report(spent=Spent(versions=3, facts=30, tasks=0)), limits)}
    assert found == {"facts": 0.75, "versions": 0.75, "tasks": 0.0}
    assert uses(report(), limits)[0].share is None
    assert uses(report(), None) == []


def retention(*losses):
    before = [True] * 1000
    parts = tuple(
        comparison(f"retention.{name}", before, [True] * (1000 - lost) + [False] * lost, name) for name, lost in losses
    )
    return RetentionMeasures(overall=parts[0], parts=parts)


def kept(text, *losses):
    lax = LAX.replace("capability_lost=1", "capability_lost=0.15")
    policy = parse_policy(f"{lax}\n[retention.parts]\n{text}\n")
    judged = judge(report(retention=retention(*losses)), policy)
    return {gate.gate: gate.verdict for gate in judged.verdicts if gate.gate.startswith("kept")}


def test_a_named_capability_may_have_its_own_limit():
    assert kept("instructions = 0.01", ("instructions", 50), ("arithmetic", 50)) == {
        "kept: instructions": "fail",
        "kept: arithmetic": "pass",
    }
    assert kept("instructions = 0.5", ("instructions", 300)) == {"kept: instructions": "pass"}
    assert kept("poetry = 0.1", ("arithmetic", 0)) == {"kept: arithmetic": "pass", "kept: poetry": "inconclusive"}


def skill_gates(text, found):
    judged = judge(report(skills=found), parse_policy(f"{LAX}\n[skills]\n{text}\n"))
    return {gate.gate: gate.verdict for gate in judged.verdicts if "skill" in gate.gate or "vector" in gate.gate}


def test_skills_that_are_lost_or_moved():
    lost = skills("v2", ("past", "overwritten", 0.6), ("upper", "biased", 0.2))
    assert skill_gates("overwritten = 0", lost) == {"skills lost": "fail"}
    assert skill_gates("overwritten = 1\nbiased = 0\nshift = 0.5", lost) == {
        "skills lost": "pass", "skills out-shouted": "fail", "function vectors": "fail",
    }  # fmt: skip
    assert skill_gates("overwritten = 1\nbiased = 1\nshift = 0.6", lost) == {
        "skills lost": "pass", "skills out-shouted": "pass", "function vectors": "pass",
    }  # fmt: skip
    assert skill_gates("overwritten = 0", None) == {}
    assert skill_gates("required = true", None) == {"skills": "inconclusive"}


def test_policies_from_before_keep_their_hash():
    """The hash of a policy without the newer sections, as the first release computed it."""
    assert parse_policy(LAX).digest == OLD_DIGEST


OLD_DIGEST = "89f9fb98d42a6ec6f4a67ac26258a545166ec77cfd59729cf8cf3f3d2a61a72e"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[approval.required]\nproduction = 0", "at least one approver"),
        ("[approval.required]\nstaging = 99", "between 0 and 20"),
        ("[retention.parts]\nx = 2", "retention.parts.x"),
        ("[budget]\nfact = 3", "budget.fact"),
        ("[skills]\noverwritten = -1", "overwritten"),
    ],
)
def test_new_sections_are_checked(text, words):
    with pytest.raises(SettingError, match=words):
        parse_policy(f"{LAX}\n{text}\n")


def test_approvers_per_alias():
    assert [parse_policy(LAX).approvers(alias) for alias in ("production", "staging")] == [1, 0]
    policy = parse_policy(f"{LAX}\n[approval.required]\nproduction = 2\nstaging = 1\n")
    assert [policy.approvers(alias) for alias in ("production", "staging", "canary")] == [2, 1, 0]


def test_every_limit_is_said_in_plain_words():
    text = default_policy_text() + "\n[retention.parts]\ninstructions = 0.03\n"
    text = text.replace("[budget] ", "[budget]\ntasks = 7\ncondition_ratio = 4\nshift = 0.5\nflops = 1e18\n#")
    text = text.replace("[skills] ", "[skills]\nbiased = 2\nshift = 0.6\nrequired = true\n#")
    said = "\n".join(sentence for _, part in explain(parse_policy(text)) for sentence in part)
    for words in ("90%", "50%", "15 points", "2 points", "instructions has a limit of its own: at most 3 points",
                  "Perplexity on held-out text rises by at most 2.0%", "10 times what it was", "50% of its matrix",
                  "Skills must be compared", "100 versions", "1,000 facts", "7 tasks", "25%", "4 times", "1e+18",
                  "Before a version stands behind production, one other person must approve.",
                  "Before a version stands behind staging, nobody needs to approve."):  # fmt: skip
        assert words in said, words
