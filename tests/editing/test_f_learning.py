from importlib import import_module

import pytest
import torch

from perdure.editing import FineTuningConfig, applied, fine_tuning
from perdure.editing.f_learning import FLearningConfig, f_learning, forget
from perdure.editing.old_answers import old_answers
from perdure.editing.training import TrainingConfig, train
from perdure.models import score_targets
from perdure.requests import Fact

FACT = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch", target_true="Danish")
UNKNOWN = FACT.model_copy(update={"target_true": None})
LAYER = {"layers": (1,)}
NAMES = [f"model.layers.1.mlp.{part}_proj.weight" for part in ("down", "gate", "up")]


def test_forgetting_by_hand():
    weight = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    old = torch.tensor([[0.5, 1.0], [0.0, -2.0]], dtype=torch.float64)
    assert torch.equal(forget(weight, old, 0.5), torch.tensor([[0.75, -2.5], [0.5, 5.0]], dtype=torch.float64))
    assert torch.equal(forget(weight, old, 0.0), weight)


def test_forgetting_all_undoes_the_training_on_the_old_answers():
    """θ + τ_old is what knows the old answers best; forgetting all of it from there gives θ back."""
    weight, old = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(forget(weight + old, old, 1.0), weight, rtol=0, atol=1e-15)


def test_the_new_answers_are_learnt_from_where_the_old_ones_are_forgotten(tiny):
    """One pass of learning moves each weight by at most the rate, from θ − λ τ_old."""
    model, tokenizer = tiny
    common = dict(learning_rate=1e-3, seed=3)
    settings = TrainingConfig(steps=4, stop_loss=0, **common)
    old = train(model, tokenizer, [(FACT.prompt, "Danish")], NAMES, settings).deltas
    config = FLearningConfig(forgetting=0.5, old_steps=4, steps=1, **LAYER, **common)
    delta = f_learning(model, tokenizer, [FACT], config)
    assert list(delta.changes) == NAMES
    for name, change in delta.changes.items():
        step = change.dense + 0.5 * old[name]
        assert 0 < float(step.abs().max()) <= 1.01e-3
        assert float(old[name].abs().max()) > 2.5e-3
    assert len(delta.notes["old_losses"]) == 4


def test_without_forgetting_it_is_fine_tuning(tiny):
    model, tokenizer = tiny
    common = dict(steps=5, learning_rate=1e-3, **LAYER)
    plain = fine_tuning(model, tokenizer, [FACT], FineTuningConfig(**common))
    delta = f_learning(model, tokenizer, [FACT], FLearningConfig(forgetting=0, **common))
    assert all(torch.equal(change.dense, plain.changes[name].dense) for name, change in delta.changes.items())


def test_the_old_answer_is_less_likely_than_after_plain_fine_tuning(tiny):
    model, tokenizer = tiny
    common = dict(steps=5, learning_rate=1e-3, stop_loss=0)
    plain = fine_tuning(model, tokenizer, [FACT], FineTuningConfig(**common))
    delta = f_learning(model, tokenizer, [FACT], FLearningConfig(forgetting=1, old_steps=5, **common))
    scores = {}
    for name, found in {"plain": plain, "forgot": delta}.items():
        with applied(model, found):
            scores[name] = score_targets(model, tokenizer, [(FACT.prompt, "Danish")])[0].log_prob
    assert scores["forgot"] < scores["plain"] - 0.5


def test_a_missing_old_answer_is_what_the_model_says(tiny):
    model, tokenizer = tiny
    own = old_answers(model, tokenizer, [UNKNOWN])[0]
    assert own
    config = FLearningConfig(steps=1, **LAYER)
    asked = f_learning(model, tokenizer, [UNKNOWN], config)
    given = f_learning(model, tokenizer, [UNKNOWN.model_copy(update={"target_true": own})], config)
    assert all(torch.equal(asked.changes[name].dense, given.changes[name].dense) for name in NAMES)


@pytest.mark.parametrize("own", ["", "Dutch"])
def test_an_answer_that_is_empty_or_right_is_not_forgotten(own, tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(import_module("perdure.editing.f_learning"), "old_answers", lambda *_given, **_named: [own])
    delta = f_learning(model, tokenizer, [UNKNOWN], FLearningConfig(steps=1, **LAYER))
    assert delta.notes["old_losses"] == []
    assert set(delta.changes) == set(NAMES)
