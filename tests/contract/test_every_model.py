"""What every registered editor must hold to in bfloat16, on an accelerator and with an adapter attached."""

import pytest
import torch

import tiny as models
from contract.test_every_editor import FACTS, METHODS, QUICK, TEXTS, weights_of
from elsewhere import DEVICE, Elsewhere, pretending, send
from perdure.deltas import changed
from perdure.editing import Moments, Surroundings, applied
from perdure.models import complete, score_targets
from perdure.registry import editors

PAIRS = [(fact.prompt, fact.target_new) for fact in FACTS]
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"))


@pytest.fixture(params=METHODS)
def method(request):
    return editors.get(request.param)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


def solve(method, model, tokenizer, **settings):
    config = method.config.model_validate(QUICK.get(method.name, {}) | settings)
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS))
    return method.call(model, tokenizer, FACTS, config, around)


def assert_learnt(before, after):
    assert all(new.log_prob > old.log_prob + 0.1 for old, new in zip(before, after, strict=True))


def assert_same(first, second):
    assert first.changes.keys() == second.changes.keys()
    for name, change in first.changes.items():
        assert all(torch.equal(a, b) for a, b in zip(change.tensors(), second.changes[name].tensors(), strict=True))


def cosine(first, second):
    """Of two deltas, each as one long vector."""
    pairs = [(first.changes[name].value().flatten(), second.changes[name].value().flatten()) for name in first.changes]
    product = sum(a @ b for a, b in pairs)
    return float(product / (sum(a @ a for a, _ in pairs) * sum(b @ b for _, b in pairs)) ** 0.5)


def test_a_bfloat16_model_learns_through_a_float32_delta(method, family, device):
    model, tokenizer = family[0].to(device, torch.bfloat16), family[1]
    before, old = weights_of(model), score_targets(model, tokenizer, PAIRS)
    delta = solve(method, model, tokenizer)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    parts = [part for change in delta.changes.values() for part in change.tensors()]
    assert {part.dtype for part in (*parts, *delta.keys.values())} == {torch.float32}
    assert {part.device.type for part in (*parts, *delta.keys.values())} == {"cpu"}
    assert any(not torch.equal(part, part.bfloat16().float()) for part in parts)
    with applied(model, delta):
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        for name, change in delta.changes.items():  # rounded once, on the device as here
            assert torch.equal(model.get_parameter(name).cpu(), changed(before[name].cpu(), change))
        assert_learnt(old, score_targets(model, tokenizer, PAIRS))


def test_bfloat16_finds_the_delta_that_float32_finds(method, tokenizer, device):
    """Of two models with the same numbers: only the forward pass is rounded, not the search and not the solve."""
    half, full = (models.qwen3().to(device, torch.bfloat16) for _ in range(2))
    found = [solve(method, model, tokenizer) for model in (half, full.float())]
    assert cosine(*found) > 0.9


def test_no_operation_mixes_devices(method, tokenizer):
    """On a pretended accelerator: the delta comes back here, and is the one that is found here."""
    few = {"values": {"steps": 2}} if "values" in method.config.model_fields else {"steps": 2}
    here = solve(method, models.llama(), tokenizer, **few)
    with pretending():
        model = send(models.llama())
        assert model.device == DEVICE
        there = solve(method, model, tokenizer, **few)
        with applied(model, there):
            score_targets(model, tokenizer, PAIRS)
            assert complete(model, tokenizer, ["Ada", "The Nile is"], max_new_tokens=3)
    parts = [part for change in there.changes.values() for part in change.tensors()]
    assert not any(isinstance(part, Elsewhere) for part in (*parts, *there.keys.values()))
    assert cosine(here, there) > 0.999


def test_an_adapter_is_edited_through_its_merged_view(method, tokenizer, device):
    """The delta is that of the merged model, and stands beside the adapter as it stands in the merged model."""
    base = models.gpt2().to(device)
    names = dict(base.named_parameters()).keys()
    model = models.with_lora(base)
    before = {n: (weight, weight.data_ptr(), weight.clone()) for n, weight in model.named_parameters()}
    delta = solve(method, model, tokenizer)
    assert delta.changes.keys() <= names
    with applied(model, delta):
        beside = score_targets(model, tokenizer, PAIRS)
    for n, weight in model.named_parameters():
        assert weight is before[n][0] and weight.data_ptr() == before[n][1] and torch.equal(weight, before[n][2])
    merged = model.merge_and_unload()
    assert_same(delta, solve(method, merged, tokenizer))
    with applied(merged, delta):
        for a, b in zip(beside, score_targets(merged, tokenizer, PAIRS), strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=0.02)


def test_a_model_in_training_comes_back_in_training(method, tokenizer):
    """Modes and gradients are the caller's; what an editor finds does not depend on them."""
    model = models.llama(attention_dropout=0.5).train().requires_grad_(True)
    delta = solve(method, model, tokenizer)
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    calm = solve(method, models.llama(attention_dropout=0.5), tokenizer)
    assert_same(delta, calm)
