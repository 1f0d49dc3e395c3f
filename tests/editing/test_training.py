import pytest
import torch
from pydantic import ValidationError

import tiny as models
from perdure.editing.training import TrainingConfig, train
from perdure.errors import EditError, ModelError
from perdure.models import score_targets

PAIRS = [("The twin city of Lyon is", "Manila"), ("Ada speaks", "Dutch"), ("Bob likes", "plums")]
NAMES = [f"model.layers.{layer}.mlp.{part}_proj.weight" for layer in (1, 2) for part in ("up", "down")]


def fixed(steps=4, **more):
    return TrainingConfig(steps=steps, learning_rate=1e-3, stop_loss=0, **more)


def changed(model, deltas):
    for name, weight in model.named_parameters():
        if name in deltas:
            weight.data = (weight.double() + deltas[name].double()).to(weight.dtype)


def test_only_the_named_matrices_change_and_the_answers_are_learnt(tiny):
    model, tokenizer = tiny
    training = train(model, tokenizer, PAIRS, NAMES, fixed(10))
    assert list(training.deltas) == NAMES
    assert all(delta.dtype == torch.float32 and delta.abs().max() > 0 for delta in training.deltas.values())
    before = score_targets(model, tokenizer, PAIRS)
    changed(model, training.deltas)
    after = score_targets(model, tokenizer, PAIRS)
    assert all(new.log_prob > old.log_prob for old, new in zip(before, after, strict=True))


def test_the_loss_is_the_mean_over_pairs_of_the_nll_per_answer_token(tiny):
    model, tokenizer = tiny
    training = train(model, tokenizer, PAIRS, NAMES, fixed(1))
    scores = score_targets(model, tokenizer, PAIRS)
    assert training.losses == [pytest.approx(-sum(score.mean_log_prob for score in scores) / 3, rel=1e-5)]


def test_without_a_stop_loss_all_passes_are_done_over_the_same_places(tiny):
    """Two trainings on other answers take the same order, and the same training twice gives the same bits."""
    model, tokenizer = tiny
    others = [(prompt, "x") for prompt, _ in PAIRS]
    seen = {}
    for stage, pairs in {"old": others, "new": PAIRS, "again": PAIRS}.items():
        steps = []
        seen[stage] = train(
            model, tokenizer, pairs, NAMES, fixed(batch_size=2), observe=lambda n, w, g, s=steps: s.append(n)
        )
        assert steps == NAMES * 2 * 4
    assert [len(training.losses) for training in seen.values()] == [4, 4, 4]
    assert seen["new"].losses == seen["again"].losses
    assert all(torch.equal(seen["new"].deltas[name], seen["again"].deltas[name]) for name in NAMES)


def test_the_seed_decides_the_order(tiny):
    model, tokenizer = tiny
    first, second = (train(model, tokenizer, PAIRS, NAMES, fixed(batch_size=1, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first.deltas[NAMES[0]], second.deltas[NAMES[0]])


def test_it_stops_below_the_stop_loss(tiny):
    model, tokenizer = tiny
    whole = train(model, tokenizer, PAIRS, NAMES, fixed(10))
    limit = (whole.losses[3] + whole.losses[4]) / 2
    assert whole.losses[3] > limit > whole.losses[4]
    early = train(model, tokenizer, PAIRS, NAMES, TrainingConfig(steps=10, learning_rate=1e-3, stop_loss=limit))
    assert early.losses == whole.losses[:5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_observer_sees_the_gradient_at_the_weights_that_it_is_shown(dtype, tokenizer):
    model = models.llama().to(dtype)
    name = NAMES[0]
    seen = []
    train(model, tokenizer, PAIRS, [name], fixed(2), observe=lambda n, w, g: seen.append((w.clone(), g.clone())))
    for weight, gradient in seen:
        assert weight.dtype == gradient.dtype == torch.float32
    parameter = dict(model.named_parameters())[name]
    assert torch.equal(seen[0][0], parameter.float())
    assert not torch.equal(seen[0][0], seen[1][0])
    if dtype == torch.float32:
        away = 1e-3 * seen[0][1] / seen[0][1].norm()
        losses = []
        for sign in (1, -1):
            start = {name: seen[0][0] + sign * away}
            losses.append(train(model, tokenizer, PAIRS, [name], fixed(1), start=start).losses[0])
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(seen[0][1].norm()), rel=0.02)


def test_a_start_is_trained_on_and_counted_in(tiny):
    model, tokenizer = tiny
    name = NAMES[0]
    own = dict(model.named_parameters())[name]
    training = train(model, tokenizer, PAIRS, [name], fixed(1), start={name: own + 0.5})
    assert float((training.deltas[name] - 0.5).abs().max()) <= 1.1e-3  # one step of Adam is the learning rate


def test_what_is_done_after_a_step_holds(tiny):
    model, tokenizer = tiny
    own = {name: weight.clone() for name, weight in model.named_parameters()}
    seen = []

    def hold(name, now, before):
        seen.append(name)
        assert torch.equal(before, own[name])
        return before if name == NAMES[0] else now

    training = train(model, tokenizer, PAIRS, NAMES, fixed(2), after_step=hold)
    assert seen == NAMES * 2
    assert float(training.deltas[NAMES[0]].abs().max()) == 0
    assert float(training.deltas[NAMES[1]].abs().max()) > 0


def test_the_model_comes_back_as_it_was_whatever_it_was(tiny):
    model, tokenizer = tiny
    model.lm_head.weight.requires_grad_(True)  # tied: the embedding as well
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    tensors = {name: weight.data_ptr() for name, weight in model.named_parameters()}

    def stop(_stage, done, _total):
        if done:
            raise KeyboardInterrupt

    train(model, tokenizer, PAIRS, NAMES, fixed())
    with pytest.raises(KeyboardInterrupt):
        train(model, tokenizer, PAIRS, NAMES, fixed(), progress=stop)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == flags
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == tensors
    assert all(weight.grad is None for weight in model.parameters())


def test_progress_counts_the_passes(tiny):
    model, tokenizer = tiny
    told = []
    train(model, tokenizer, PAIRS, NAMES, fixed(3), progress=lambda *args: told.append(args), stage="learning")
    assert told == [("learning", done, 3) for done in range(4)]


def test_a_loss_that_is_no_number_is_refused(tiny):
    model, tokenizer = tiny
    with pytest.raises(EditError, match="lower the learning rate"):
        train(model, tokenizer, PAIRS, NAMES, TrainingConfig(learning_rate=1e30, stop_loss=0))


def test_unknown_names_and_settings_are_refused(tiny):
    model, tokenizer = tiny
    with pytest.raises(ModelError, match="nowhere"):
        train(model, tokenizer, PAIRS, ["nowhere"], fixed())
    with pytest.raises(ValidationError, match="steps"):
        TrainingConfig(steps=0)
