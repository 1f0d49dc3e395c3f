import math

import pytest

from perdure.errors import RequestError
from perdure.measuring import (
    Answer,
    EditAnswer,
    Outcomes,
    Passage,
    TaskHits,
    build_edit_measures,
    build_harness,
    build_language,
    build_retention,
)
from perdure.measuring.compare import LOST_LIMIT, label_of


def _answers(*written, expected="Paris"):
    return tuple(
        Answer(item=f"item {place}", expected=expected, written=text, ok=text == expected)
        for place, text in enumerate(written)
    )


def _edit(kind="prompt", prompt="Alba is in", written="Rome", **more):
    given = {
        "fact": "f", "subject": "Alba", "kind": kind, "prompt": prompt, "expected": "Rome",
        "expected_is_given": True, "target": "Rome", "rival": "Oslo", "written": written,
        "exact": written == "Rome", "contains": "Rome" in written, "log_prob_new": -1.0, "log_prob_old": -2.0,
        "accuracy": 1.0,
    }  # fmt: skip
    return EditAnswer(**given | more)


def test_what_was_lost_and_kept_is_counted_and_told():
    before = Outcomes(suite_id="s", retention={
        "functions.country_capital": _answers("Paris", "Paris", "x"), "facts.prompt": _answers("Paris"),
    })  # fmt: skip
    after = Outcomes(suite_id="s", retention={
        "functions.country_capital": _answers("Lyon…", "Paris", "Paris"), "facts.prompt": _answers("Nice"),
    })  # fmt: skip
    found = build_retention(before, after)
    assert found.lost == (
        "country capital of item 0: before 'Paris', now 'Lyon…'",
        "item 0: before 'Paris', now 'Nice'",
    )
    assert (found.lost_count, found.gained) == (2, 1)
    assert (found.kept.hits, found.kept.n, found.kept_of_base) == (1, 3, None)
    assert (found.overall.before.hits, found.overall.after.hits, found.overall.difference.n) == (3, 2, 4)
    assert math.isclose(found.overall.difference.value, -0.25)
    assert [part.name for part in found.parts] == ["retention.functions.country_capital", "retention.facts.prompt"]
    assert found.parts[0].label == "in context: country capital" and found.parts[0].base is None


def test_the_base_stands_beside_the_parent():
    base, before, after = (
        Outcomes(suite_id="s", retention={"instructions": _answers(*words)})
        for words in (["Paris", "Paris"], ["Paris", "x"], ["Paris", "x"])
    )
    found = build_retention(before, after, base)
    assert found.overall.difference.value == 0.0 and found.overall.against_base.value == -0.5
    assert found.overall.base.hits == 2 and (found.kept_of_base.hits, found.kept_of_base.n) == (1, 2)


def test_losses_are_cut_and_every_part_is_among_them():
    many = {"functions.a": _answers(*["Paris"] * 80), "facts.prompt": _answers("Paris", "Paris")}
    none = {part: _answers(*["x"] * len(answers)) for part, answers in many.items()}
    found = build_retention(Outcomes(suite_id="s", retention=many), Outcomes(suite_id="s", retention=none))
    assert len(found.lost) == LOST_LIMIT and found.lost_count == 82
    assert sum(words.startswith("item") for words in found.lost) == 2


def test_different_suites_do_not_compare():
    one, other = (Outcomes(suite_id=name, retention={"a": _answers("Paris")}) for name in "ab")
    with pytest.raises(RequestError, match="same suite"):
        build_retention(one, other)
    shorter = Outcomes(suite_id="a", retention={"a": _answers("Paris", "x")})
    with pytest.raises(RequestError, match="different parts"):
        build_retention(one, shorter)


def test_what_was_not_measured_is_none():
    assert build_retention(Outcomes(), Outcomes()) is None
    assert build_language(Outcomes(), Outcomes()) is None
    assert build_edit_measures(Outcomes(), Outcomes()) is None
    assert build_harness(Outcomes(), Outcomes()) == ()


def test_edits_are_judged_in_every_way_apart():
    before = Outcomes(edits=(
        _edit(written="Oslo", log_prob_new=-3.0, accuracy=0.5),
        _edit("paraphrase", "Alba lies in", "Oslo", log_prob_new=-2.0),
        _edit("neighbour", "Bree is in", "Bonn", expected="Bonn", rival="Bonn", contains=True, exact=True,
              log_prob_new=-4.0),
    ))  # fmt: skip
    after = Outcomes(edits=(
        _edit(written="Rome"),
        _edit("paraphrase", "Alba lies in", "old Rome", exact=False, accuracy=0.5),
        _edit("neighbour", "Bree is in", "Rome", expected="Bonn", rival="Bonn", contains=False, exact=False,
              log_prob_new=-1.0, accuracy=0.0),
    ))  # fmt: skip
    found = build_edit_measures(before, after)
    shares = {comparison.name: (comparison.before.hits, comparison.after.hits) for comparison in found.comparisons}
    assert shares == {
        "edits.prompt.generation_contains": (0, 1),
        "edits.prompt.generation_exact": (0, 1),
        "edits.prompt.probability": (0, 1),
        "edits.prompt.teacher_forced": (0, 1),
        "edits.paraphrase.generation_contains": (0, 1),
        "edits.paraphrase.generation_exact": (0, 0),
        "edits.paraphrase.probability": (0, 1),
        "edits.paraphrase.teacher_forced": (1, 0),
        "edits.neighbour.generation_contains": (1, 0),
        "edits.neighbour.generation_exact": (1, 0),
        "edits.neighbour.probability": (1, 0),
        "edits.neighbour.teacher_forced": (1, 0),
        "edits.neighbour.unchanged": (1, 0),
    }
    labels = {comparison.name: comparison.label for comparison in found.comparisons}
    assert labels["edits.prompt.generation_contains"] == "says the new fact, asked as written"
    assert labels["edits.neighbour.probability"] == (
        "finds the right answer likelier than the new fact, asked a question nearby"
    )
    assert found.facts == 1 and len(found.cases) == 3
    first = found.cases[0]
    assert (first.before, first.after, first.before_ok, first.after_ok) == ("Oslo", "Rome", False, True)
    assert math.isclose(first.probability_after, 1 / (1 + math.exp(-1.0)))


def test_questions_without_a_known_answer_count_as_unchanged_only():
    silent = _edit("neighbour", "Bree is in", "", expected=None, expected_is_given=False, rival=None,
                   log_prob_old=None, accuracy=None, contains=False)  # fmt: skip
    found = build_edit_measures(Outcomes(edits=(silent,)), Outcomes(edits=(silent,)))
    assert [comparison.name for comparison in found.comparisons] == ["edits.neighbour.unchanged"]
    assert found.cases[0].expected is None and found.cases[0].probability_before is None


def test_questions_must_be_the_same_and_held_to_the_same_answer():
    here, there = Outcomes(edits=(_edit(),)), Outcomes(edits=(_edit(prompt="Alba stands in"),))
    with pytest.raises(RequestError, match="not asked of the parent"):
        build_edit_measures(there, here)
    with pytest.raises(RequestError, match="another old answer in the base"):
        build_edit_measures(here, here, Outcomes(edits=(_edit(rival="Bergen"),)))
    with pytest.raises(RequestError, match="2 questions, the candidate 1"):
        build_edit_measures(here.model_copy(update={"edits": (*here.edits, *there.edits)}), here)


def test_the_base_of_an_edit_is_compared_too():
    after, before = Outcomes(edits=(_edit(),)), Outcomes(edits=(_edit(written="Rome x"),))
    base = Outcomes(edits=(_edit(written="Oslo"),))
    first = build_edit_measures(before, after, base).comparisons[0]
    assert (first.base.hits, first.against_base.value, first.difference.value) == (0, 1.0, 0.0)


def test_language_is_compared_passage_by_passage():
    before = Outcomes(suite_id="s", language=tuple(Passage(name="p", nll=nll, tokens=2) for nll in (2.0, 4.0)))
    after = Outcomes(suite_id="s", language=tuple(Passage(name="p", nll=nll, tokens=2) for nll in (3.0, 7.0)))
    found = build_language(before, after, before)
    assert (found.passages, found.tokens) == (2, 4)
    assert math.isclose(found.ratio, math.e) and found.ratio_to_base == found.ratio
    assert math.isclose(found.perplexity_after / found.perplexity_before, found.ratio)
    assert found.ratio_low < found.ratio < found.ratio_high


def test_another_tokenizer_is_refused():
    one, other = (
        Outcomes(suite_id="s", language=tuple(Passage(name="p", nll=1.0, tokens=n) for _ in range(2))) for n in (2, 3)
    )
    with pytest.raises(RequestError, match="tokenizers"):
        build_language(one, other)


def test_harness_tasks_are_paired_by_item():
    given = {"task": "arc", "metric": "acc", "filter": "none", "how": "log-likelihood", "higher_is_better": True}
    before = Outcomes(harness=(TaskHits(**given, hits={"0": True, "1": True, "2": False}),))
    after = Outcomes(harness=(TaskHits(**given, hits={"1": False, "2": False, "9": True}),))
    (found,) = build_harness(before, after)
    assert (found.name, found.difference.n, found.difference.value) == ("harness.arc.acc", 2, -0.5)


def test_outcomes_join_part_by_part():
    language = (Passage(name="p", nll=1.0, tokens=2),)
    joined = Outcomes(suite_id="s", edits=(_edit(),)).joined(Outcomes(language=language))
    assert joined.language == language and joined.suite_id == "s" and len(joined.edits) == 1


@pytest.mark.parametrize(("part", "label"), [("facts.prompt", "facts of the world"), ("mine.a_b", "mine: a b")])
def test_parts_have_plain_labels(part, label):
    assert label_of(part) == label
