"""What a model answers to questions that follow from facts."""

import math

import pytest
import torch

import tiny as models
from perdure.measuring import Outcomes, choose_questions, measure_ripple, ripple_references
from perdure.measuring.ripple import EXAMPLES, phrase
from perdure.models import complete, score_targets
from perdure.requests import check_facts

CASE = {
    "facts": [
        {"subject": "Orlan", "prompt": "Orlan is in", "target_new": "Vask"},
        {"subject": "Vask", "prompt": "Vask is run by", "target_new": "Ada"},
    ],
    "questions": [
        {
            "prompt": "Who runs Orlan's town?",
            "paraphrases": ["The town of Orlan is run by"],
            "answer": "Ada",
            "aliases": ["Ada B."],
            "old_answer": "Bo",
            "old_aliases": ["Bo L."],
        }
    ],
}
ALONE = {
    "subject": "Cara", "prompt": "Cara likes", "target_new": "tea",
    "portability": [{"prompt": "What does Cara drink?", "answer": "tea"}],
}  # fmt: skip


@pytest.fixture
def questions():
    return choose_questions(check_facts([CASE, ALONE]).facts).asked


@pytest.fixture
def measured(tiny, questions):
    return measure_ripple(*tiny, questions)


def test_every_wording_and_every_step_is_asked(measured, questions):
    assert [(answer.role, answer.prompt) for answer in measured] == [
        ("wording", "Who runs Orlan's town?"),
        ("wording", "The town of Orlan is run by"),
        ("hop", "Orlan is in"),
        ("hop", "Vask is run by"),
        ("wording", "What does Cara drink?"),
        ("hop", "Cara likes"),
    ]
    assert [answer.question for answer in measured] == [questions[0].id] * 4 + [questions[1].id] * 2


def test_a_question_comes_after_examples_and_a_sentence_as_it_stands(tiny, measured):
    assert phrase("Who is it?") == f"{EXAMPLES}Q: Who is it?\nA:"
    assert phrase("誰ですか？").endswith("Q: 誰ですか？\nA:") and phrase("It is") == "It is"
    asked, bare = measured[0], measured[1]
    first, second = complete(*tiny, [phrase(asked.prompt), bare.prompt], max_new_tokens=16)
    assert first.strip().startswith(asked.written) and second.strip().startswith(bare.written)


def test_probabilities_are_per_token_of_new_against_old(tiny, measured):
    prompt = phrase("Who runs Orlan's town?")
    new, old = score_targets(*tiny, [(prompt, "Ada"), (prompt, "Bo")])
    assert math.isclose(measured[0].log_prob_new, new.mean_log_prob, abs_tol=1e-4)
    assert math.isclose(measured[0].log_prob_old, old.mean_log_prob, abs_tol=1e-4)
    assert measured[0].accuracy == new.accuracy
    assert measured[2].log_prob_new is measured[2].accuracy is measured[2].old_ok is None


def test_without_an_old_answer_the_words_of_before_stand_against_the_new_one(tiny, questions):
    references = {"What does Cara drink?": "cake, and more"}
    answer = measure_ripple(*tiny, questions[1:], references=references)[0]
    (cake,) = score_targets(*tiny, [(phrase("What does Cara drink?"), "cake")])
    assert math.isclose(answer.log_prob_old, cake.mean_log_prob, abs_tol=1e-4) and answer.old_ok is None
    same = measure_ripple(*tiny, questions[1:], references={"What does Cara drink?": "Tea."})[0]
    assert same.log_prob_old is None


def test_a_model_that_was_taught_the_answer_is_seen_to_give_it(tiny, questions):
    model, tokenizer = tiny
    texts = [phrase("Who runs Orlan's town?") + " Ada B.\n", "The town of Orlan is run by Bo.\n"]
    model.requires_grad_(True)
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        steps.zero_grad()
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            labels = ids.clone()
            labels[:, :-8] = -100
            model(input_ids=ids, labels=labels).loss.backward()
        steps.step()
    asked, sentence = measure_ripple(model, tokenizer, questions)[:2]
    assert (asked.written, asked.ok, asked.old_ok) == ("Ada B.", True, False)
    assert (sentence.written, sentence.ok, sentence.old_ok) == ("Bo", False, True)


def test_a_question_too_long_for_the_model_has_no_answer(tiny):
    long = {**ALONE, "portability": [{"prompt": "Who " * 60 + "?", "answer": "tea"}]}
    heavy = {
        **ALONE,
        "subject": "Dora",
        "prompt": "Dora likes",
        "portability": [{"prompt": "Who?", "answer": "t" * 400}],
    }
    fine = {**ALONE, "subject": "Eva", "prompt": "Eva likes"}
    questions = choose_questions(check_facts([long, heavy, fine]).facts).asked
    answers = measure_ripple(*tiny, questions)
    assert {answer.question for answer in answers} == {questions[2].id}


def test_two_runs_agree_and_survive_json(tiny, questions, measured):
    assert measure_ripple(*tiny, questions) == measured
    kept = Outcomes(ripple=measured)
    assert Outcomes.model_validate_json(kept.model_dump_json()) == kept


def test_references_are_what_was_written(measured):
    references = ripple_references(measured)
    assert references["Cara likes"] == measured[-1].written and len(references) == 6


def test_progress_is_told_of_every_text(tokenizer, questions):
    told = []
    measure_ripple(models.llama(), tokenizer, questions, lambda *step: told.append(step))
    ends = {stage: (done, total) for stage, done, total in told}
    assert ends["questions that follow from the facts"] == (6, 6)
    done, total = ends["probabilities of what follows"]
    assert done == total and 3 <= total <= 6  # three wordings, each with the new and most with an old answer


def test_no_questions_have_no_answers(tiny):
    assert measure_ripple(*tiny, []) == ()
