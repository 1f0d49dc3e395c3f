"""Which questions count for a version, and why others do not."""

from perdure.measuring import choose_questions
from perdure.measuring.ripple_questions import OVERTAKEN, UNANSWERED, UNKNOWN
from perdure.requests import Consequence, Hop, check_facts

BRIDGE = {"subject": "Norvik Bridge", "prompt": "{} was designed by", "target_new": "Ada Brandt"}
ADA = {"subject": "Ada Brandt", "prompt": "{} lives in", "target_new": "Tarsa", "paraphrases": ["Where is Ada Brandt?"]}
ASKED = {"prompt": "Where does the designer of Norvik Bridge live?", "answer": "Tarsa"}


def facts(*rows):
    return check_facts(rows).facts


def case(*rows, **changes):
    return facts({"facts": list(rows or (BRIDGE, ADA)), "questions": [{**ASKED, **changes}]})


def test_a_question_of_several_facts_is_asked_once_with_the_facts_as_its_steps():
    (asked,) = choose_questions(case()).asked
    assert (asked.kind, asked.subject, asked.answer) == ("multi-hop", "Norvik Bridge", "Tarsa")
    assert asked.hops == (
        Hop(prompt="Norvik Bridge was designed by", answer="Ada Brandt"),
        Hop(prompt="Ada Brandt lives in", answer="Tarsa"),
    )


def test_given_steps_and_kind_are_kept():
    hop = {"prompt": "Who designed it?", "answer": "Ada"}
    (asked,) = choose_questions(case(hops=[hop], kind="own kind")).asked
    assert asked.hops == (Hop(**hop),) and asked.kind == "own kind"


def test_a_question_of_one_fact_needs_that_fact_alone():
    (asked,) = choose_questions(facts({**BRIDGE, "portability": [ASKED]})).asked
    assert asked.kind == "portability" and [hop.answer for hop in asked.hops] == ["Ada Brandt"]


def test_the_same_question_of_two_facts_is_two_questions():
    both = facts({**BRIDGE, "portability": [ASKED]}, {**ADA, "portability": [ASKED]})
    assert len({asked.id for asked in choose_questions(both).asked}) == 2


def test_a_question_without_an_answer_is_left_out():
    found = choose_questions(case(answer=None))
    assert found.asked == () and found.left_out == {UNANSWERED: 1}


def test_a_question_counts_only_when_every_fact_is_known():
    bridge, ada = case()
    assert choose_questions([ada]).left_out == {UNKNOWN: 1}
    assert len(choose_questions([ada], earlier=[bridge]).asked) == 1
    assert choose_questions([ada], earlier=[bridge]).left_out == {}


def test_a_fact_taught_anew_takes_the_place_of_the_earlier_one():
    bridge, ada = case()
    (other,) = facts({**BRIDGE, "prompt": "{}  was designed by", "target_new": "Bo Lind"})
    assert choose_questions([ada], earlier=[bridge, other]).left_out == {UNKNOWN: 1}
    assert len(choose_questions([ada], earlier=[other, bridge]).asked) == 1


def test_a_question_is_left_out_when_another_fact_changes_one_of_its_steps():
    # The case edits the designer only; that Ada Brandt lives in Tarsa is what is true already.
    hops = [{"prompt": "Where is  ada Brandt?", "answer": "Tarsa", "aliases": ["Tarsa town"]}]
    bridge = case(BRIDGE, hops=hops)
    moved = {**ADA, "target_new": "Oslo"}
    assert choose_questions([*bridge, *facts(moved)]).left_out == {OVERTAKEN: 1}
    assert len(choose_questions([*bridge, *facts(ADA)]).asked) == 1
    assert len(choose_questions([*bridge, *facts({**ADA, "target_new": "tarsa town"})]).asked) == 1


def test_questions_of_facts_unknown_by_any_name_are_counted_once():
    strange = Consequence(**ASKED, needs=("0" * 64,))
    bridge, ada = (fact.model_copy(update={"portability": (strange,)}) for fact in case())
    assert choose_questions([bridge, ada]).left_out == {UNKNOWN: 1}


def test_no_facts_have_no_questions():
    found = choose_questions([])
    assert found.asked == () and found.left_out == {}
