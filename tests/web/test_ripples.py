"""What became of each question that follows from the facts."""

import pytest
import ripple_sample as sample

from perdure.measuring.report import RippleCase
from perdure.measuring.ripple_measures import compare_cases
from perdure.web import ripples
from perdure.web.cases import BAD, GOOD


def case(before="0", after="0", hops="1", kind="multi-hop"):
    """A case with a wording for each 0 or 1 in `before` and `after`, and a step for each in `hops`."""
    wordings = [
        {"prompt": f"{n}?", "before": "a", "after": "b", "before_ok": old == "1", "after_ok": new == "1"}
        for n, (old, new) in enumerate(zip(before, after, strict=True))
    ]
    steps = [
        {"prompt": f"{n} is", "expected": "x", "before": "a", "after": "b", "before_ok": False, "after_ok": ok == "1"}
        for n, ok in enumerate(hops)
    ]
    return RippleCase(question="q", kind=kind, subject="s", expected="x", wordings=wordings, hops=steps)


def row(given):
    return ripples.ripple_listing([given]).groups[0].rows[0]


@pytest.mark.parametrize(
    ("given", "tone", "words"),
    [
        (case(after="1"), GOOD, "Answered"),
        (case(before="1", after="1"), GOOD, "Right before and after"),
        (case(before="1"), BAD, "Right before, wrong now"),
        (case(hops="11"), BAD, "Every step known, not joined"),
        (case(hops="1"), BAD, "Fact known, not drawn on"),
        (case(hops="10"), BAD, "Not answered"),
    ],
)
def test_outcome(given, tone, words):
    assert (row(given).outcome.tone, row(given).outcome.words) == (tone, words)


def test_the_wording_that_was_answered_is_shown_and_the_others_are_counted():
    found = row(case(before="100", after="001", hops="110"))
    assert found.wording.prompt == "2?"
    assert (found.wordings, found.steps) == ("1 of 3 wordings answered", "2 of 3 single steps answered")
    assert row(case(before="010", after="000")).wording.prompt == "1?"
    assert row(case(before="00", after="00")).wording.prompt == "0?"
    alone = row(case())
    assert (alone.wordings, alone.steps) == ("", "")


def test_questions_stand_by_kind():
    found = ripples.ripple_listing(sample.ripple_cases())
    assert [(group.kind, len(group.rows)) for group in found.groups] == [
        ("several facts joined", 4),
        ("reasoning", 1),
        ("another name for the subject", 1),
        ("the fact turned round", 1),
    ]
    assert (found.shown, found.left_out) == (7, 0)


def test_where_there_is_no_room_what_went_well_is_left_out_first():
    found = ripples.ripple_listing([case(after="1"), case(), case(after="1"), case()], room=2100)
    assert (found.shown, found.left_out) == (2, 2)
    assert [shown.outcome.tone for group in found.groups for shown in group.rows] == [BAD, BAD]


def test_the_chart_holds_free_answers_only():
    names = [given.name for given in ripples.drawn(sample.ripples().comparisons)]
    assert names == [
        "ripple.multi-hop.steps",
        "ripple.multi-hop.all_steps",
        "ripple.multi-hop.answered",
        *(f"ripple.{kind}.{part}" for kind in ("reasoning", "subject_aliasing", "logical_generalization")
          for part in ("steps", "answered")),
    ]  # fmt: skip


def test_measures_stand_by_kind_and_known_kinds_are_explained():
    found = ripples.by_kind(compare_cases([case(kind="Reasoning"), case(kind="my own")]))
    assert [group.kind for group in found] == ["reasoning", "my own"]
    assert found[0].meaning.startswith("the answer takes a step") and found[1].meaning == ""
    assert [label for label, _ in found[1].rows] == ["the new fact itself", "the question"]
