"""Ripple effects compared: what is counted, over how many, and what is said of it."""

import pytest

from perdure.errors import RequestError
from perdure.measuring import Outcomes, RippleAnswer, RippleQuestions, build_ripple
from perdure.measuring.report import RippleCase, RippleHop, RippleWording
from perdure.measuring.ripple_measures import KINDS_SHOWN, compare_cases, summarise
from perdure.measuring.ripple_questions import TOO_LONG, UNKNOWN, RippleQuestion
from perdure.requests import Hop


def case(name, right="", *, steps="", kind="multi-hop", old=None, probability=(None, None), chosen=(None, None)):
    """`right` and `steps`: a pair of 0 and 1 for each wording or step, before and after, as in "01 11"."""
    wordings = [
        RippleWording(
            prompt=f"{name}{place}?",
            before="a",
            after="b",
            before_ok=pair[0] == "1",
            after_ok=pair[1] == "1",
            before_old=None if old is None else old[0] == "1",
            after_old=None if old is None else old[1] == "1",
            probability_before=probability[0],
            probability_after=probability[1],
            chosen_before=chosen[0],
            chosen_after=chosen[1],
        )
        for place, pair in enumerate(right.split())
    ]
    hops = [
        RippleHop(
            prompt=f"{name}.{place}",
            expected="x",
            before="a",
            after="b",
            before_ok=pair[0] == "1",
            after_ok=pair[1] == "1",
        )
        for place, pair in enumerate(steps.split())
    ]
    return RippleCase(
        question=name,
        kind=kind,
        subject="Orlan",
        expected="x",
        old=None if old is None else "y",
        wordings=tuple(wordings),
        hops=tuple(hops),
    )


def figures(cases):
    return {given.name: (given.before.hits, given.after.hits, given.after.n) for given in compare_cases(cases)}


def test_a_question_is_answered_when_one_of_its_wordings_is():
    found = figures([case("a", "00 01 00", steps="01 01"), case("b", "00 00 00", steps="01 00")])
    assert found["ripple.multi-hop.answered"] == (0, 1, 2)
    assert found["ripple.multi-hop.wordings"] == (0, 1, 6)
    assert found["ripple.multi-hop.steps"] == (0, 3, 4)
    assert found["ripple.multi-hop.all_steps"] == (0, 1, 2)
    assert len(found) == 4


def test_a_step_that_two_questions_share_counts_once():
    first, second = case("a", "00", steps="01 01"), case("b", "00", steps="00 01")
    shared = second.model_copy(update={"hops": (first.hops[0], second.hops[1])})
    assert figures([first, shared])["ripple.multi-hop.steps"] == (0, 3, 3)


def test_probability_tokens_and_old_answers_are_counted_where_they_are_known():
    cases = [
        case("a", "00", steps="01 01", old="10", probability=(0.2, 0.7), chosen=(False, True)),
        case("b", "00", steps="01 01", probability=(0.6, 0.5)),
    ]
    found = figures(cases)
    assert found["ripple.multi-hop.probability"] == (1, 1, 2)
    assert found["ripple.multi-hop.teacher_forced"] == (0, 1, 1)
    assert found["ripple.multi-hop.old_answer"] == (1, 0, 1)
    by_name = {given.name: given for given in compare_cases(cases)}
    assert not by_name["ripple.multi-hop.old_answer"].higher_is_better
    assert by_name["ripple.multi-hop.probability"].how == "probability"
    assert "teacher-forced" in by_name["ripple.multi-hop.probability"].label
    assert by_name["ripple.multi-hop.teacher_forced"].how == "teacher-forced"


def test_kinds_are_apart_and_spelt_for_people():
    found = compare_cases([case("a", "01", steps="01", kind="Subject_Aliasing"), case("b", "00", kind="Logical <b>!")])
    assert [(given.name, given.label) for given in found] == [
        ("ripple.subject_aliasing.steps", "another name for the subject: the new fact itself"),
        ("ripple.subject_aliasing.answered", "another name for the subject: the question"),
        ("ripple.logical_b.steps", "logical b: the new fact itself"),
        ("ripple.logical_b.answered", "logical b: the question"),
    ]


def test_very_many_kinds_become_few():
    cases = [case(f"k{n}", "01", steps="01", kind=f"kind {n}") for n in range(50)]
    cases.append(case("again", "00", steps="00", kind="kind 49"))
    found = figures(cases)
    answered = {name: counts for name, counts in found.items() if name.endswith("answered")}
    assert len(answered) == KINDS_SHOWN
    assert answered["ripple.kind_49.answered"] == (0, 1, 2)
    assert answered["ripple.other_kinds.answered"] == (0, 50 - KINDS_SHOWN + 1, 50 - KINDS_SHOWN + 1)


def test_a_model_that_repeats_and_does_not_reason_is_told_so():
    said = summarise(
        [case(f"q{n}", "00", steps="01 01", old="00") for n in range(19)] + [case("z", "01", steps="01 01")]
    )
    assert said == (
        "The model repeats the new facts (40 of 40 single steps) but does not reason with them: it answers 1 of 20 "
        "multi-hop questions (95% interval 1–24%); before the change, 0. Before the change it could hardly answer such "
        "questions: it gave the answer that was right then to 0 of 19."
    )


@pytest.mark.parametrize(
    ("right", "steps", "words"),
    [
        ("01", "01 01", "repeats the new facts (20 of 20 single steps) and reasons with them"),
        ("00", "01 00", "repeats some of the new facts (10 of 20 single steps) but does not reason with them"),
        ("00", "00 00", "does not repeat most of the new facts (0 of 20 single steps) and does not reason with them"),
        ("01", "00 00", "does not repeat most of the new facts (0 of 20 single steps) and reasons with them"),
    ],
)
def test_the_words_follow_the_figures(right, steps, words):
    assert words in summarise([case(f"q{n}", right, steps=steps) for n in range(10)])


def test_what_follows_from_one_fact_is_told_apart():
    said = summarise([case("a", "11", steps="01", kind="Reasoning"), case("b", "00", steps="01", kind="Reasoning")])
    assert said == (
        "Where one new fact is enough, it says the fact itself 2 of 2 times and answers 1 of 2 questions that follow "
        "from it (95% interval 9–91%); before the change, 1."
    )
    assert summarise([]) == ""


QUESTION = RippleQuestion(
    id="q",
    kind="multi-hop",
    subject="Orlan",
    wordings=("Who?", "Whose?"),
    answer="Ada",
    aliases=(),
    old_answer="Bo",
    old_aliases=(),
    hops=(Hop(prompt="One is", answer="1"), Hop(prompt="Two is", answer="2")),
)


def answers(ok, *, question="q", prompts=("Who?", "Whose?", "One is", "Two is")):
    return Outcomes(
        ripple=tuple(
            RippleAnswer(
                question=question,
                role="wording" if prompt.endswith("?") else "hop",
                prompt=prompt,
                written=f"{prompt} {ok}",
                ok=ok,
                old_ok=not ok,
                log_prob_new=-1.0,
                log_prob_old=-2.0,
                accuracy=1.0,
            )
            for prompt in prompts
        )
    )


def test_answers_become_cases_with_their_steps_in_order():
    found = build_ripple(RippleQuestions((QUESTION,)), answers(False), answers(True), examples="E")
    (made,) = found.cases
    assert [(wording.prompt, wording.before, wording.after) for wording in made.wordings] == [
        ("Who?", "Who? False", "Who? True"),
        ("Whose?", "Whose? False", "Whose? True"),
    ]
    assert [(hop.prompt, hop.expected, hop.before_ok, hop.after_ok) for hop in made.hops] == [
        ("One is", "1", False, True),
        ("Two is", "2", False, True),
    ]
    assert made.wordings[0].probability_after == pytest.approx(0.7310585786)  # 1 / (1 + 1/e)
    assert (found.joined.hits, found.joined.n, found.examples) == (1, 1, "E")
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_questions_without_an_answer_were_too_long_and_reasons_are_kept():
    other = RippleQuestion(**{**QUESTION.__dict__, "id": "other"})
    asked = RippleQuestions((QUESTION, other), {UNKNOWN: 3})
    found = build_ripple(asked, answers(False), answers(False), examples="")
    assert found.left_out == {UNKNOWN: 3, TOO_LONG: 1} and len(found.cases) == 1
    assert found.joined is None


def test_nothing_said_to_follow_is_nothing():
    assert build_ripple(RippleQuestions(), Outcomes(), Outcomes(), examples="") is None
    found = build_ripple(RippleQuestions((), {UNKNOWN: 2}), Outcomes(), Outcomes(), examples="")
    assert (found.comparisons, found.cases, found.summary) == ((), (), "")


@pytest.mark.parametrize(
    "before",
    [Outcomes(), answers(False, question="p"), answers(False, prompts=("Whom?", "Whose?", "One is", "Two is"))],
)
def test_models_that_were_asked_other_questions_do_not_compare(before):
    with pytest.raises(RequestError, match="on the same facts"):
        build_ripple(RippleQuestions((QUESTION,)), before, answers(True), examples="")
