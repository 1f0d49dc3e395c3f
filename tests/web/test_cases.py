"""What became of each question, and which ones stand on the first screen."""

import pytest
import report_sample as sample

from perdure.measuring.report import Case
from perdure.web import cases


def case(kind="prompt", before_ok=False, after_ok=True, expected="new", before="old", after="new", fact="f"):
    return Case(
        fact=fact,
        subject="s",
        kind=kind,
        prompt="p",
        expected=expected,
        before=before,
        after=after,
        before_ok=before_ok,
        after_ok=after_ok,
    )


@pytest.mark.parametrize(
    ("given", "tone", "words"),
    [
        (case(), "good", "Learnt"),
        (case(after_ok=False), "bad", "Not learnt"),
        (case(before_ok=True, after_ok=False), "bad", "Right before, wrong now"),
        (case("neighbour", before_ok=True), "good", "Still right"),
        (case("neighbour", before_ok=True, after_ok=False), "bad", "Right before, wrong now"),
        (case("neighbour", after_ok=False), "neutral", "Wrong before and after"),
        (case("neighbour", expected=None, after_ok=False), "bad", "Changed"),
        (case("neighbour", expected=None, after_ok=False, after=" old "), "good", "Unchanged"),
    ],
)
def test_outcome(given, tone, words):
    assert cases.outcome(given) == cases.Outcome(tone, words)


def test_neighbours_are_listed_apart():
    found = sample.cases()
    assert cases.listing(found, neighbours=False).shown == 36
    assert cases.listing(found, neighbours=True).shown == 12


def test_where_there_is_no_room_what_went_well_is_left_out_first():
    given = [case(fact=str(place), after_ok=place != 7) for place in range(10)]
    found = cases.listing(given, neighbours=False, room=1400)
    assert (found.shown, found.left_out) == (2, 8)
    assert [row.case.fact for group in found.groups for row in group.rows] == ["0", "7"]


def test_examples_show_what_went_wrong_and_how_often():
    found = cases.examples(sample.cases())
    assert [row.case.kind for row in found] == ["prompt", "paraphrase", "neighbour"]
    assert [row.outcome.tone for row in found] == ["good", "bad", "bad"]
    assert [row.context for row in found] == ["none of 12 went wrong", "2 of 24 went wrong", "1 of 12 went wrong"]


def test_examples_of_no_cases():
    assert cases.examples(()) == ()
