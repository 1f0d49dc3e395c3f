"""Gates on what an encoder ceased to recognise of sets that it was not tuned on."""

import pytest

from perdure.governance import default_policy_text, judge, parse_policy
from perdure.measuring.concept_measures import build_concepts
from perdure.measuring.concepts import ConceptAnswers, SetAnswers
from perdure.measuring.report import Report, Spent
from shops import LAX

POLICY = parse_policy(default_policy_text())
N = 200


def model(*rights, n=N):
    """A set for each tuple: of n items a class, so many are recognised."""
    sets = {}
    for place, right in enumerate(rights):
        labels = [label for label in range(len(right)) for _ in range(n)]
        said = tuple(label if at % n < right[label] else -1 for at, label in enumerate(labels))
        sets[str(place)] = SetAnswers(
            name=f"set {place}", side="text", classes=tuple(f"class {k}" for k in range(len(right))),
            items=tuple(range(len(labels))), labels=tuple(labels), linear=said, neighbours=said, train=9, strength=1.0,
        )  # fmt: skip
    return ConceptAnswers(settings="s", sets=sets)


def gates(*models, policy=POLICY, tuned_on=()):
    found = build_concepts(*models, tuned_on=tuned_on)
    report = Report(
        version="v", version_id="0" * 64, parent="v0", base="v0", model="m", request={}, concepts=found,
        spent=Spent(versions=1, facts=0, tasks=0),
    )  # fmt: skip
    return {
        gate.gate: gate for gate in judge(report, policy).verdicts if "concepts" in gate.gate or "single" in gate.gate
    }


@pytest.mark.parametrize(("kept", "verdict"), [(180, "pass"), (177, "inconclusive"), (160, "fail")])
def test_the_mean_loss_is_judged_by_its_whole_interval(kept, verdict):
    found = gates(model((180,) * 5, (180,) * 5), model((kept,) * 5, (kept,) * 5))
    assert found["concepts kept"].verdict == verdict
    assert "n = 2000" in found["concepts kept"].reason


def test_a_mean_does_not_hide_one_set_that_is_lost():
    found = gates(model(*((180,) * 5,) * 9), model((150,) * 5, *((182,) * 5,) * 8))
    assert found["concepts kept"].verdict == "pass"
    assert found["concepts kept: set 0"].verdict == "fail"
    assert found["concepts kept: set 1"].verdict == "pass"


def test_what_is_lost_by_name_is_held_to_the_same_limits():
    """The linear probe loses nothing, the names of classes 50 points of the first set."""
    before, after = model((180,) * 5, (180,) * 5), model((180,) * 5, (180,) * 5)
    lost = {"0": model((80,) * 5).sets["0"].linear, "1": after.sets["1"].linear}

    def by_name(given, said):
        sets = {name: each.model_copy(update={"zero_shot": said[name]}) for name, each in given.sets.items()}
        return given.model_copy(update={"sets": sets})

    kept = {name: each.linear for name, each in before.sets.items()}
    found = gates(by_name(before, kept), by_name(after, lost), by_name(before, kept))
    assert {name: gate.verdict for name, gate in found.items() if "by name" in name} == {
        "concepts kept by name": "fail",
        "concepts kept by name (against the base)": "fail",
        "concepts kept by name: set 0": "fail",
        "concepts kept by name: set 0 (against the base)": "fail",
        "concepts kept by name: set 1": "pass",
        "concepts kept by name: set 1 (against the base)": "pass",
    }
    assert found["concepts kept"].verdict == "pass"
    assert not any("by name" in name for name in gates(before, after))


def test_a_set_does_not_hide_one_class_that_is_lost():
    found = gates(model((180,) * 40), model((90, *(182,) * 39)))
    assert found["concepts kept: set 0"].verdict == "pass"
    gate = found["single concepts"]
    assert gate.verdict == "fail"
    assert "of 40 classes, class 0 of set 0 is furthest off: −45.0 (" in gate.reason


def test_a_class_of_few_items_cannot_tell():
    assert gates(model((180,) * 4), model((178,) * 4))["single concepts"].verdict == "pass"
    gate = gates(model((9,) * 40, n=10), model((8,) * 40, n=10))["single concepts"]
    assert gate.verdict == "inconclusive"


def test_drift_against_the_base_is_seen_as_well():
    found = gates(model((158,) * 5), model((156,) * 5), model((180,) * 5))
    assert found["concepts kept"].verdict == "pass"
    assert found["concepts kept (against the base)"].verdict == "fail"
    assert found["concepts kept: set 0 (against the base)"].verdict == "fail"


def test_what_was_tuned_on_is_not_held_to_stay():
    found = gates(model((180,) * 5, (180,) * 5), model((100,) * 5, (180,) * 5), tuned_on=["0"])
    assert {gate.verdict for gate in found.values()} == {"pass"}
    assert "concepts kept: set 0" not in found
    assert gates(model((180,) * 5), model((100,) * 5), tuned_on=["0"]) == {}


def test_policies_of_before_keep_their_digest_and_set_no_limit():
    old = parse_policy(LAX)
    assert old.concepts is None
    assert "concepts" not in old.model_dump(exclude_none=True)
    assert gates(model((180,) * 5), model((0,) * 5), policy=old) == {}
    some = parse_policy(LAX + "[concepts]\nmean_lost=0.1\nset_lost=0.2\n")
    assert "single concepts" not in gates(model((180,) * 5), model((0,) * 5), policy=some)
