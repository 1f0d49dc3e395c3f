"""The plain editor that ours is timed against solves the same problem."""

import torch
from bench.published import compare, plain_memit

from perdure.deltas import changed
from perdure.editing import MemitConfig, Moments, Surroundings, memit
from perdure.editing.subjects import sample_contexts
from perdure.requests import Fact

TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
FACTS = (
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch", paraphrases=("Ada talks in",)),
)


def test_with_the_same_contexts_both_solve_the_same_change(family):
    model, tokenizer = family
    config = MemitConfig.model_validate({"contexts": 2, "values": {"steps": 5}, "moment_weight": 1.0})
    moments = Moments(lambda: (model, tokenizer), TEXTS)
    plain = plain_memit(model, tokenizer, FACTS, sample_contexts(2), config, moments)
    ours = memit(model, tokenizer, FACTS, config, Surroundings(moments=moments))
    assert plain.changes.keys() == ours.changes.keys()
    weights = dict(model.named_parameters())
    for name, change in ours.changes.items():
        edited, moved = changed(weights[name], plain.changes[name]), change.value().abs().max()
        assert (edited - changed(weights[name], change)).abs().max() < 1e-2 * moved


def test_both_are_timed_and_scored(tiny, monkeypatch):
    model, tokenizer = tiny
    quick = MemitConfig.model_validate({"contexts": 1, "values": {"steps": 3}})
    monkeypatch.setattr("bench.published.MemitConfig", lambda: quick)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    found = compare(model, tokenizer, FACTS, 3, Moments(lambda: (model, tokenizer), TEXTS))
    assert found["rows_of_a_fact"] == {"ours": 3, "plain": 5}
    assert found["ratio"] > 0 and set(found["nll_of_new_answers"]["plain"]) == {"prompts", "paraphrases"}
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
