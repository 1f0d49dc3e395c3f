"""What is recognised before and after: planted losses are found, none are invented, tuned sets stay out of the mean."""

import pytest

from perdure.errors import RequestError
from perdure.measuring.concept_measures import build_concepts
from perdure.measuring.concepts import ConceptAnswers, SetAnswers

CLASSES = ("cat", "dog", "ship")
N = 40


def answers(right, *, name="pets", zero_shot=False, n=N):
    """A set with n items a class, of which the first `right[c]` are recognised by every probe."""
    labels = [c for c in range(len(CLASSES)) for _ in range(n)]
    said = tuple(c if at % n < right[c] else (c + 1) % 3 for at, c in enumerate(labels))
    return SetAnswers(
        name=name, side="image", classes=CLASSES, items=tuple(range(len(labels))), labels=tuple(labels), linear=said,
        neighbours=said, zero_shot=said if zero_shot else None, train=300, strength=10.0,
    )  # fmt: skip


def model(*rights, settings="s", zero_shot=False):
    return ConceptAnswers(
        settings=settings,
        sets={f"set{k}": answers(right, name=f"set {k}", zero_shot=zero_shot) for k, right in enumerate(rights)},
    )


def test_where_nothing_is_forgotten_the_loss_is_zero_with_an_interval_around_it():
    found = build_concepts(model((30, 35, 38)), model((30, 35, 38)))
    assert found.linear.difference.value == 0
    assert found.linear.difference.low < 0 < found.linear.difference.high
    assert found.linear.against_base is None
    assert not [given for _, given in found.classes if given.worse or given.better]
    assert found.sets[0].lost_count == 0


def test_a_planted_loss_is_found_in_its_set_and_class():
    found = build_concepts(model((36, 36, 36), (36, 36, 36)), model((36, 36, 36), (36, 12, 36)))
    first, second = found.sets
    assert first.linear.difference.value == 0
    assert second.linear.difference.value == pytest.approx(-24 / 120)
    assert second.linear.difference.high < 0
    assert found.linear.difference.value == pytest.approx(-0.1)
    assert [(each.name, given.name) for each, given in found.classes if given.worse] == [("set 1", "dog")]
    worst = second.classes[0]
    assert (worst.name, worst.after.hits) == ("dog", 12)
    assert worst.jointly.low < worst.difference.low < worst.difference.high < worst.jointly.high < 0
    assert (second.lost_count, second.gained) == (24, 0)


def test_sets_that_were_tuned_on_are_shown_and_left_out_of_the_mean():
    found = build_concepts(model((20, 20, 20), (36, 36, 36)), model((40, 40, 40), (30, 36, 36)), tuned_on=["set0"])
    assert [(each.name, each.tuned) for each in found.sets] == [("set 1", False), ("set 0", True)]
    assert found.linear.sets == 1
    assert found.linear.difference.value == pytest.approx(-6 / 120)
    assert [each.name for each, _ in found.classes] == ["set 1"] * 3
    assert build_concepts(model((20, 20, 20)), model((40, 40, 40)), tuned_on=["set0"]).linear is None


def test_the_original_stands_beside_the_version_before():
    found = build_concepts(model((30, 36, 36)), model((29, 36, 36)), model((36, 36, 36)))
    assert found.linear.difference.value == pytest.approx(-1 / 120)
    assert found.linear.against_base.value == pytest.approx(-7 / 120)
    assert found.linear.against_original == found.linear.against_base
    assert found.sets[0].linear.base.hits == 108


def test_zero_shot_is_compared_where_there_is_a_text_tower():
    found = build_concepts(model((30, 36, 36), zero_shot=True), model((36, 36, 36), zero_shot=True))
    assert found.zero_shot.difference.value == pytest.approx(6 / 120)
    assert found.sets[0].zero_shot.how == "zero-shot"
    assert build_concepts(model((30, 36, 36)), model((36, 36, 36))).zero_shot is None


def test_answers_that_do_not_compare_are_refused():
    with pytest.raises(RequestError, match="other settings"):
        build_concepts(model((1, 1, 1)), model((1, 1, 1), settings="other"))
    with pytest.raises(RequestError, match="other sets"):
        build_concepts(model((1, 1, 1)), model((1, 1, 1), (1, 1, 1)))
    fewer = ConceptAnswers(settings="s", sets={"set0": answers((1, 1, 1), n=20)})
    with pytest.raises(RequestError, match="other sets"):
        build_concepts(fewer, model((1, 1, 1)))
    assert build_concepts(ConceptAnswers(settings="s", sets={}), ConceptAnswers(settings="s", sets={})) is None
