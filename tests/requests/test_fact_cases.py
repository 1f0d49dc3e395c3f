"""Questions that follow from facts: cases of several facts, MQuAKE, KnowEdit, and what is refused."""

import json

import pytest

from perdure.errors import RequestError
from perdure.requests import (
    ALIASES_LIMIT,
    HOPS_LIMIT,
    NEEDS_LIMIT,
    PARAPHRASES_LIMIT,
    QUESTIONS_LIMIT,
    Consequence,
    Hop,
    check_facts,
    read_facts,
)

BRIDGE = {"subject": "Norvik Bridge", "prompt": "{} was designed by", "target_new": "Ada Brandt"}
ADA = {"subject": "Ada Brandt", "prompt": "{} lives in", "target_new": "Tarsa"}
ASKED = {
    "prompt": "In which town does the designer of Norvik Bridge live?",
    "paraphrases": ["Where does the person who designed Norvik Bridge live?"],
    "answer": "Tarsa",
    "aliases": ["the town of Tarsa"],
    "old_answer": "Lund",
}
CASE = {"facts": [BRIDGE, ADA], "questions": [ASKED]}


def rewrite(subject, prompt, new, old, question):
    targets = {"target_new": {"str": new, "id": "Q1"}, "target_true": {"str": old, "id": "Q2"}}
    return {"subject": subject, "prompt": prompt, "relation_id": "P1", "question": question, **targets}


def mquake(**changes):
    return {
        "case_id": 1,
        "requested_rewrite": [
            rewrite("Norvik Bridge", "{} was designed by", "Ada Brandt", "Bo Lind", "Who designed Norvik Bridge?"),
            rewrite("Ada Brandt", "{} lives in", "Tarsa", "Oslo", "Where does Ada Brandt live?"),
        ],
        "questions": ["Where does the designer of Norvik Bridge live?", "Norvik Bridge's designer lives where?"],
        "answer": "Lund",
        "answer_alias": ["Lund, Sweden"],
        "new_answer": "Tarsa",
        "new_answer_alias": ["Tarsa town"],
        "single_hops": [],
        "new_single_hops": [
            {"question": "Who designed Norvik Bridge?", "cloze": "x", "answer": "Ada Brandt", "answer_alias": ["Ada"]},
            {"question": "Where does Ada Brandt live?", "cloze": "y", "answer": "Tarsa", "answer_alias": []},
        ],
        **changes,
    }


def problems_of(*rows):
    with pytest.raises(RequestError) as caught:
        check_facts(rows)
    return [(problem.field, problem.reason) for problem in caught.value.problems]


def test_a_case_of_mquake_is_one_question_that_needs_every_fact():
    bridge, ada = check_facts([mquake()]).facts
    (asked,) = bridge.portability
    assert ada.portability == (asked,)
    assert asked == Consequence(
        prompt="Where does the designer of Norvik Bridge live?",
        paraphrases=("Norvik Bridge's designer lives where?",),
        answer="Tarsa",
        aliases=("Tarsa town",),
        old_answer="Lund",
        old_aliases=("Lund, Sweden",),
        kind="multi-hop",
        hops=(
            Hop(prompt="Who designed Norvik Bridge?", answer="Ada Brandt", aliases=("Ada",)),
            Hop(prompt="Where does Ada Brandt live?", answer="Tarsa"),
        ),
        needs=(bridge.id, ada.id),
    )
    assert asked.wordings == (asked.prompt, "Norvik Bridge's designer lives where?")


def test_facts_that_two_cases_share_are_one_and_keep_both_questions():
    other = mquake(questions=["Whose town is Norvik Bridge's designer in?"], new_single_hops=None)
    found = check_facts([mquake(), other])
    assert [len(fact.portability) for fact in found.facts] == [2, 2]
    assert len(found.merged) == 2


@pytest.mark.parametrize(
    "without", ["new_answer_alias", "answer_alias", "answer", "new_single_hops", "new_answer", "questions"]
)
def test_what_a_case_of_mquake_lacks_is_not_known(without):
    given = {key: value for key, value in mquake().items() if key != without}
    for row in (given, mquake(**{without: None})):
        facts = check_facts([row]).facts
        assert len(facts) == 2
        asked = facts[0].portability
        assert len(asked) == (0 if without == "questions" else 1)
        if asked:
            fields = {"new_answer_alias": "aliases", "answer_alias": "old_aliases", "answer": "old_answer"}
            fields |= {"new_single_hops": "hops", "new_answer": "answer"}
            assert not getattr(asked[0], fields[without])


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"questions": ["Where?", 7]}, "questions[1]", "must be text"),
        ({"questions": [7]}, "questions[0]", "must be text"),
        ({"questions": 7}, "questions", "must be a list"),
        ({"questions": ["Where?", *(f"Where {n}?" for n in range(PARAPHRASES_LIMIT + 1))]}, "questions", "at most"),
        ({"new_answer": ["Tarsa"]}, "new_answer", "must be text"),
        ({"new_answer": "Lund"}, "answer", "nothing follows"),
        ({"new_answer_alias": ["a", ""]}, "new_answer_alias[1]", "is empty"),
        ({"new_answer_alias": {"a": 1}}, "new_answer_alias", "must be a list"),
        ({"answer_alias": ["a\u202eb"]}, "answer_alias[0]", "RIGHT-TO-LEFT"),
        ({"new_answer_alias": ["x"] * (ALIASES_LIMIT + 1)}, "new_answer_alias", f"has {ALIASES_LIMIT + 1} entries"),
        ({"new_single_hops": [{"question": "Who?"}]}, "new_single_hops[0].answer", "is missing"),
        ({"new_single_hops": ["Who?"]}, "new_single_hops[0]", "must be an object"),
        ({"new_single_hops": "Who?"}, "new_single_hops", "must be a list"),
        ({"new_single_hops": [{}] * (HOPS_LIMIT + 1)}, "new_single_hops", "at most"),
        ({"requested_rewrite": []}, "requested_rewrite", "is empty"),
        ({"requested_rewrite": [7]}, "requested_rewrite[0]", "must be an object"),
        ({"requested_rewrite": [{}] * (NEEDS_LIMIT + 1)}, "requested_rewrite", "at most 100"),
    ],
)
def test_a_fault_in_a_case_of_mquake_is_named_once_and_where_it_stands(changes, field, reason):
    ((found, said),) = problems_of(mquake(**changes))
    assert found == field and reason in said


def test_an_own_case_is_read_from_a_line(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(CASE) + "\n" + json.dumps({**BRIDGE, "subject": "Ostra Bridge"}) + "\n")
    bridge, ada, other = read_facts(path).facts
    assert bridge.portability == ada.portability == (Consequence(**ASKED, needs=(bridge.id, ada.id)),)
    assert other.portability == () and bridge.source == ada.source == "cases.jsonl:1"


def test_a_fact_of_a_case_keeps_its_own_questions():
    own = {"prompt": "Which bridge did Ada Brandt design?", "answer": "Norvik Bridge", "kind": "turned"}
    near = "Who designed Ostra Bridge?"
    facts = [{**BRIDGE, "portability": [own], "neighbours": [near]}, ADA]
    bridge, ada = check_facts([{"facts": facts, "questions": [ASKED, "And then?"]}]).facts
    assert bridge.portability[0] == Consequence(**own) and bridge.neighbours[0].prompt == near
    assert ada.portability == bridge.portability[1:] and ada.portability[1].answer is None


def test_facts_written_out_are_read_again():
    facts = check_facts([CASE, mquake(new_answer="Lodz")]).facts
    assert check_facts([json.loads(fact.model_dump_json()) for fact in facts]).facts == facts


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"facts": []}, "facts", "is empty"),
        ({"facts": [7]}, "facts[0]", "must be an object, got a number"),
        ({**CASE, "question": []}, "question", "Known: facts, questions"),
        ({**CASE, "source": "x"}, "source", "no field of a case"),
        ({"facts": [BRIDGE, {**ADA, "target_new": ""}]}, "facts[1].target_new", "is empty"),
        ({"facts": [{**BRIDGE, "targt_new": "x"}]}, "facts[0].targt_new", "Did you mean 'target_new'"),
        ({"facts": [BRIDGE] * (NEEDS_LIMIT + 1)}, "facts", "at most 100"),
        ({**CASE, "questions": {}}, "questions", "must be a list"),
        ({**CASE, "questions": [{**ASKED, "alias": []}]}, "questions[0].alias", "Did you mean 'aliases'"),
        ({**CASE, "questions": [{**ASKED, "hops": [{"q": 1}]}]}, "questions[0].hops[0].prompt", "is missing"),
        ({**CASE, "questions": [{**ASKED, "old_answer": "Tarsa"}]}, "questions[0].old_answer", "nothing follows"),
        ({**CASE, "questions": [{**ASKED, "needs": ["ab"]}]}, "questions[0].needs[0]", "pattern"),
        ({**CASE, "questions": ["x?"] * (QUESTIONS_LIMIT + 1)}, "questions", f"has {QUESTIONS_LIMIT + 1} entries"),
    ],
)
def test_a_fault_in_an_own_case_is_named_where_it_stands(row, field, reason):
    found, said = problems_of(row)[0]
    assert found == field and reason in said


def test_a_fact_cannot_hold_more_questions_than_allowed_by_way_of_its_case():
    many = [{"prompt": f"Which is {n}?"} for n in range(QUESTIONS_LIMIT)]
    ((field, said),) = problems_of({"facts": [{**BRIDGE, "portability": ["Own?"]}, ADA], "questions": many})
    assert field == "questions" and f"{QUESTIONS_LIMIT + 1} questions for one fact" in said


def test_a_single_case_as_a_json_file_does_not_lose_its_questions(tmp_path):
    path = tmp_path / "case.json"
    path.write_text(json.dumps(CASE))
    with pytest.raises(RequestError, match="put it in a list"):
        read_facts(path)
    path.write_text(json.dumps([CASE]))
    assert len(read_facts(path).facts[0].portability) == 1


def test_contradictions_between_cases_are_refused_and_their_questions_stay_with_the_other_facts():
    other = {"facts": [{**BRIDGE, "target_new": "Eva Holm"}, {**ADA, "subject": "Eva Holm"}], "questions": [ASKED]}
    fields = {field for field, _ in problems_of(CASE, other)}
    assert fields == {"target_new"}
    found = check_facts([CASE, other], skip_bad=True)
    assert [fact.subject for fact in found.facts] == ["Ada Brandt", "Eva Holm"]
    assert [len(fact.portability[0].needs) for fact in found.facts] == [2, 2]


KNOWEDIT = {
    "subject": "Norvik Bridge",
    "prompt": "Who designed Norvik Bridge?",
    "target_new": "Ada Brandt",
    "ground_truth": ["Bo Lind"],
}


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "Where?", "ground_truth": [["Tarsa", "Tarsa town"], ["Old Tarsa"]]},
        {"prompt": "Where?", "ground_truth": ["Tarsa", "Tarsa town", "Old Tarsa"]},
    ],
)
def test_portability_of_knowedit_keeps_its_kind_and_every_right_answer(given):
    kinds = {"Reasoning": [given], "Subject_Aliasing": [{"prompt": "Who?", "ground_truth": "Ada Brandt"}]}
    (fact,) = check_facts([{**KNOWEDIT, "portability": kinds}]).facts
    reasoning, aliasing = fact.portability
    assert (reasoning.kind, reasoning.answer, reasoning.aliases) == ("Reasoning", "Tarsa", ("Tarsa town", "Old Tarsa"))
    assert (aliasing.kind, aliasing.answer, aliasing.aliases) == ("Subject_Aliasing", "Ada Brandt", ())


def test_portability_of_easyedit_keeps_its_kind():
    kinds = {"Reasoning": {"prompt": ["Where?", "Why?"], "ground_truth": ["Tarsa", ["A", "B"]]}, "Other": None}
    (fact,) = check_facts([{**KNOWEDIT, "portability": kinds}]).facts
    assert [(q.kind, q.answer, q.aliases) for q in fact.portability] == [
        ("Reasoning", "Tarsa", ()),
        ("Reasoning", "A", ("B",)),
    ]


def test_deep_answers_are_refused_and_not_followed():
    deep: object = "x"
    for _ in range(500):
        deep = [deep]
    fields = problems_of({**KNOWEDIT, "portability": [{"prompt": "Where?", "ground_truth": deep}]})
    assert fields == [("portability[0].answer", "must be text in quotes, got a list")]


def test_columns_of_questions_are_read(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text("subject,prompt,target_new,portability\nLyon,Lyon is run by,Ada,Who lives? => Bea | And?\n")
    (fact,) = read_facts(path).facts
    assert fact.portability == (Consequence(prompt="Who lives?", answer="Bea"), Consequence(prompt="And?"))
