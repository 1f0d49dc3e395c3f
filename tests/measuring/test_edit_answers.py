import math

import pytest
import torch

import tiny as models
from perdure.endings import first_clause
from perdure.measuring import Outcomes, build_edit_measures, measure_edits, references_from
from perdure.models import score_targets
from perdure.requests import Fact, Neighbour

KNOWN = Fact(
    subject="Alba",
    prompt="Alba is in",
    target_new="Rome",
    target_true="Oslo",
    paraphrases=("The place of Alba is", "Go to Alba, that is"),
    neighbours=(Neighbour(prompt="Bree is in", answer="Bonn"),),
)
UNKNOWN = Fact(
    subject="Cara",
    prompt="Cara likes",
    target_new="tea",
    paraphrases=("What Cara likes is",),
    neighbours=(Neighbour(prompt="Dora likes"),),
)


@pytest.fixture
def measured(tiny):
    return measure_edits(*tiny, [KNOWN, UNKNOWN])


def test_every_question_is_asked(measured):
    assert [(answer.kind, answer.prompt) for answer in measured] == [
        ("prompt", "Alba is in"),
        ("paraphrase", "The place of Alba is"),
        ("paraphrase", "Go to Alba, that is"),
        ("neighbour", "Bree is in"),
        ("prompt", "Cara likes"),
        ("paraphrase", "What Cara likes is"),
        ("neighbour", "Dora likes"),
    ]
    assert {answer.fact for answer in measured} == {KNOWN.id, UNKNOWN.id}


def test_a_neighbour_that_facts_share_is_asked_once(tiny, measured):
    """Its probability is of each fact's target all the same."""
    near = (Neighbour(prompt="Bree is in", answer="Bonn"),)
    other = Fact(subject="Eda", prompt="Eda is in", target_new="Kyiv", target_true="Bonn", neighbours=near)
    seen = []
    found = measure_edits(*tiny, [KNOWN, other, UNKNOWN], lambda *step: seen.append(step))
    assert [answer for answer in found if answer.fact != other.id] == list(measured)
    assert found[5].written == measured[3].written and found[5].log_prob_new != measured[3].log_prob_new
    assert seen[-1][0] == "probabilities of answers" and ("questions about the facts", 8, 8) in seen


def test_probabilities_are_per_token_and_of_new_against_old(tiny, measured):
    pairs = [("Alba is in", "Rome"), ("Alba is in", "Oslo"), ("Bree is in", "Rome"), ("Bree is in", "Bonn")]
    rome, oslo, near_rome, bonn = score_targets(*tiny, pairs)
    prompt, neighbour = measured[0], measured[3]
    assert math.isclose(prompt.log_prob_new, rome.log_prob / len(rome.log_probs), abs_tol=1e-4)
    assert math.isclose(prompt.log_prob_old, oslo.mean_log_prob, abs_tol=1e-4)
    assert (prompt.expected, prompt.rival, prompt.accuracy) == ("Rome", "Oslo", rome.accuracy)
    assert math.isclose(neighbour.log_prob_new, near_rome.mean_log_prob, abs_tol=1e-4)
    assert math.isclose(neighbour.log_prob_old, bonn.mean_log_prob, abs_tol=1e-4)
    assert (neighbour.expected, neighbour.accuracy) == ("Bonn", bonn.accuracy)


def test_where_no_old_answer_is_given_the_model_before_the_edit_gives_it(tiny, measured):
    prompt, paraphrase, neighbour = measured[4:]
    said = first_clause(prompt.written)
    assert said and prompt.rival == paraphrase.rival == said
    assert neighbour.expected == first_clause(neighbour.written) and not neighbour.expected_is_given
    assert neighbour.contains and neighbour.exact


def test_a_later_version_is_held_to_what_was_said_before(tiny):
    references = {"Cara likes": "cake, and more", "Dora likes": "pie"}
    prompt, paraphrase, neighbour = measure_edits(*tiny, [UNKNOWN], references=references)
    assert prompt.rival == paraphrase.rival == "cake"
    assert (neighbour.expected, neighbour.rival, neighbour.contains) == ("pie", "pie", False)


def test_an_old_answer_that_is_the_new_one_is_no_rival(tiny):
    prompt, paraphrase, neighbour = measure_edits(*tiny, [UNKNOWN], references={"Cara likes": "Tea.", "Dora likes": ""})
    assert prompt.rival is None and prompt.log_prob_old is None and paraphrase.log_prob_old is None
    assert neighbour.expected is None and neighbour.accuracy is None and not neighbour.contains


def test_references_are_what_was_written(measured):
    references = references_from(measured)
    assert references["Cara likes"] == measured[4].written
    assert set(references) == {answer.prompt for answer in measured}


def test_a_taught_model_is_seen_to_have_learnt(tiny):
    model, tokenizer = tiny
    fact = KNOWN.model_copy(update={"paraphrases": (), "neighbours": ()})
    ids = torch.tensor([tokenizer("Alba is in Rome.\n")["input_ids"]])
    labels = ids.clone()
    labels[:, : len(tokenizer("Alba is in")["input_ids"])] = -100
    model.requires_grad_(True)
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        steps.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        steps.step()
    (answer,) = measure_edits(model, tokenizer, [fact])
    assert answer.written == "Rome" and answer.exact and answer.contains and answer.accuracy == 1.0
    assert answer.log_prob_new > answer.log_prob_old


def test_two_runs_agree_and_survive_json(tiny, measured):
    assert measure_edits(*tiny, [KNOWN, UNKNOWN]) == measured
    kept = Outcomes(edits=measured)
    assert Outcomes.model_validate_json(kept.model_dump_json()) == kept


def test_no_facts_have_no_answers(tiny):
    assert measure_edits(*tiny, []) == ()


def test_two_versions_and_the_base_compare(tokenizer):
    facts = [KNOWN, UNKNOWN]
    before = measure_edits(models.llama(1), tokenizer, facts)
    references = references_from(before)
    after, base = (measure_edits(models.llama(seed), tokenizer, facts, references=references) for seed in (2, 3))
    found = build_edit_measures(*(Outcomes(edits=edits) for edits in (before, after, base)))
    by_name = {comparison.name: comparison for comparison in found.comparisons}
    assert by_name["edits.neighbour.unchanged"].before.value == 1.0
    assert by_name["edits.prompt.probability"].difference.n == by_name["edits.prompt.probability"].base.n == 2
    assert len(found.cases) == len(before) and type(found).model_validate_json(found.model_dump_json()) == found
