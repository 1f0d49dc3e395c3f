"""Anchors: what a model writes itself, or passages, held and not learnt."""

import pytest
import torch

import tiny
from perdure.errors import SettingError
from perdure.tuning.anchors import anchor_rows
from perdure.tuning.config import TuningConfig
from perdure.tuning.defaults import usual_settings
from perdure.tuning.run import tune
from tuning_tasks import UPPER

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
HELD = {"regularizers": [{"kind": "distillation", "on": "anchors"}], "anchors": 3}


PARTS = TEMPLATE.replace("{{ message.content }}", "{% for part in message.content %}{{ part.text }}{% endfor %}")


def chatting(template=TEMPLATE):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [TEMPLATE, PARTS], ids=["texts", "parts"])
def test_a_chat_model_asks_itself_and_replies(template):
    tokenizer = chatting(template)
    rows = anchor_rows(tiny.llama(), tokenizer, 3, "own", seed=1)
    beginning = tokenizer("<s>user\n", add_special_tokens=False)["input_ids"]
    assert len(rows) == 3
    for row in rows:
        assert row.anchor
        assert list(row.ids[: len(beginning)]) == beginning
        held = [token for token, learns in zip(row.ids, row.learns, strict=True) if learns]
        assert 1 <= len(held) <= 16
        assert tokenizer.decode(row.ids[: len(row.ids) - len(held)]).endswith("assistant\n")


def test_a_plain_model_writes_from_its_start_token():
    rows = anchor_rows(tiny.llama(), tiny.tokenizer(), 2, "own")
    assert all(row.ids[0] == 0 and row.learns[0] is False and all(row.learns[1:]) for row in rows)


def test_the_same_seed_writes_the_same_and_leaves_other_draws_alone():
    model, tokenizer = tiny.llama(), chatting()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = anchor_rows(model, tokenizer, 3, "own", seed=4)
    assert torch.equal(torch.rand(2), expected)
    assert anchor_rows(model, tokenizer, 3, "own", seed=4) == first
    assert anchor_rows(model, tokenizer, 3, "own", seed=5) != first


def test_no_anchor_is_no_work():
    told = []
    assert anchor_rows(None, None, 0, "own", progress=lambda *step: told.append(step)) == []
    assert not told


def test_passages_are_counted():
    rows = anchor_rows(tiny.llama(), tiny.tokenizer(), 2, "passages")
    assert [len(row.ids) for row in rows] == [64, 64]
    with pytest.raises(SettingError, match="built-in passages; given 1000000"):
        anchor_rows(tiny.llama(), tiny.tokenizer(), 1_000_000, "passages")


def test_nothing_is_learnt_from_anchors_and_only_they_are_held():
    quick = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2}
    plain = tune(tiny.llama(), tiny.tokenizer(), UPPER, TuningConfig(**quick))
    held = tune(tiny.llama(), tiny.tokenizer(), UPPER, TuningConfig(**quick, **HELD))
    assert held.delta.notes["rows"] == plain.delta.notes["rows"] + 3
    first, second = (found.delta.notes["log"][0] for found in (plain, held))
    assert second["regularizer/distillation"] == pytest.approx(0, abs=1e-6)
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)  # one step: the loss before it, of the same rows


@pytest.mark.parametrize(
    ("terms", "anchors"),
    [
        ([{"kind": "l2sp"}, {"kind": "ewc"}, {"kind": "orthogonal"}], 0),
        ([{"kind": "distillation", "on": "task"}], 0),
        ([{"kind": "feature_distance", "weight": 0}], 0),
        ([{"kind": "l2sp"}, {"kind": "distillation"}], 32),
        ([{"kind": "feature_distance"}], 32),
        ([{"kind": "kfac"}], 32),
        ([{"kind": "kfac", "weight": 0}], 0),
        ([{"kind": "function_vector"}], 32),
    ],
)
def test_anchors_are_there_only_where_a_regularizer_reads_them(terms, anchors):
    assert TuningConfig(**{**usual_settings(), "regularizers": terms}).anchors == anchors


def test_anchors_without_a_regularizer_are_refused():
    with pytest.raises(ValueError, match="held by regularizers"):
        TuningConfig(anchors=3)
