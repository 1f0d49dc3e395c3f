"""Questions that follow from facts, from the request to the report and the difference of versions."""

import pytest

from perdure.measuring.ripple_questions import UNKNOWN
from perdure.requests import check_facts
from perdure.workspace.differences import diff_versions
from shops import QUICK

BRIDGE = {"subject": "Norvik", "prompt": "{} was designed by", "target_new": "Ada"}
ADA = {"subject": "Ada", "prompt": "{} lives in", "target_new": "Tarsa"}
ASKED = {
    "prompt": "Where does Norvik's designer live?",
    "answer": "Tarsa",
    "aliases": ["Tarsa town"],
    "old_answer": "Lund",
}
CASE = {"facts": [BRIDGE, ADA], "questions": [ASKED]}
ALONE = {"subject": "Mira", "prompt": "Mira lives in", "target_new": "Rome",
         "portability": [{"prompt": "In what land is Mira?", "answer": "Italy", "kind": "Reasoning"}]}  # fmt: skip


def edit(shop, facts, **more):
    return shop.edit(facts, config=QUICK, actor="kato", **more)


def test_the_questions_of_a_case_reach_the_report(tiny_shop):
    report = tiny_shop.measure(edit(tiny_shop, [CASE, ALONE]), actor="kato")
    joined, alone = report.ripple.cases
    assert (joined.kind, joined.expected, joined.old, len(joined.hops)) == ("multi-hop", "Tarsa", "Lund", 2)
    assert (alone.kind, alone.expected, len(alone.hops)) == ("Reasoning", "Italy", 1)
    assert report.ripple.left_out == {} and report.ripple.summary and "Q: " in report.ripple.examples
    assert {given.name for given in report.ripple.comparisons} >= {
        "ripple.multi-hop.answered",
        "ripple.reasoning.steps",
    }
    assert tiny_shop.report("v1") == report


def test_facts_without_questions_have_no_ripple_effects(tiny_shop):
    assert tiny_shop.measure(edit(tiny_shop, [ADA]), actor="kato").ripple is None


def test_a_question_counts_for_the_version_that_knows_its_last_fact(tiny_shop):
    bridge, ada = check_facts([CASE]).facts
    first = edit(tiny_shop, [bridge])
    report = tiny_shop.measure(first, actor="kato")
    assert report.ripple.cases == () and report.ripple.left_out == {UNKNOWN: 1}
    second = tiny_shop.measure(edit(tiny_shop, [ada]), actor="kato")
    assert len(second.ripple.cases) == 1 and second.ripple.left_out == {}
    apart = tiny_shop.measure(edit(tiny_shop, [ada], on="v0"), actor="kato")
    assert apart.ripple.left_out == {UNKNOWN: 1}


def test_what_follows_is_asked_once(tiny_shop, monkeypatch):
    version = edit(tiny_shop, [CASE])
    first = tiny_shop.measure(version, actor="kato")
    for name in ("measure_ripple", "measure_edits", "measure_retention"):
        monkeypatch.setattr(f"perdure.workspace.measurements.{name}", lambda *_: pytest.fail("asked again"))
    assert tiny_shop.measure(version, actor="kato").ripple == first.ripple


def test_a_difference_gathers_the_ripple_effects_of_the_versions_between(tiny_shop):
    first, second = (edit(tiny_shop, [rows]) for rows in (CASE, ALONE))
    for version in (first, second):
        tiny_shop.measure(version, actor="kato")
    found = {name: diff_versions(tiny_shop, tiny_shop.version(name), second) for name in ("v0", "v1", "v2")}
    counts = {
        name: {given.name: given.after.n for given in diff.ripple if given.name.endswith("answered")}
        for name, diff in found.items()
    }
    assert counts == {
        "v0": {"ripple.multi-hop.answered": 1, "ripple.reasoning.answered": 1},
        "v1": {"ripple.reasoning.answered": 1},
        "v2": {},
    }
    assert "multi-hop" in found["v0"].ripple_summary and found["v2"].ripple_summary == ""
