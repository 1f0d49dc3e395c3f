from types import SimpleNamespace

import pytest
import torch

import tiny as models
from perdure.deltas import Change, Delta
from perdure.editing import Surroundings, applied
from perdure.editing.lora import LoraConfig, adapted, lora, merged
from perdure.errors import EditError
from perdure.models import Projection, layout_of
from perdure.requests import Fact

FACT = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")


def state_of(model):
    """Everything that an adapter could leave behind."""
    return (
        {name: id(module) for name, module in model.named_modules()},
        {name: set(vars(module)) for name, module in model.named_modules()},
        {name: (weight.data_ptr(), weight.requires_grad) for name, weight in model.named_parameters()},
        torch.random.get_rng_state().tolist(),
    )


def mlps_of(model):
    return [matrix for block in layout_of(model).mlp_matrices for matrix in block]


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_by_hand(transposed):
    a, b = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0], [-1.0]])  # rank 1, from 3 inputs to 2 outputs
    weight = torch.zeros(3, 2) if transposed else torch.zeros(2, 3)
    projection = Projection("x.weight", SimpleNamespace(weight=weight), transposed)
    change = merged(projection, a, b, 2.0).product()
    expected = torch.tensor([[2.0, 4.0, 6.0], [-2.0, -4.0, -6.0]], dtype=torch.float64)
    assert torch.equal(change, expected.T if transposed else expected)


def test_the_delta_does_what_the_adapters_do(family):
    model, _ = family
    projections = mlps_of(model)
    ids = torch.tensor([[5, 9, 40, 77, 3]])
    plain = model(ids).logits
    generator = torch.Generator().manual_seed(1)
    with adapted(model, projections, rank=3, alpha=6, seed=0) as factors:
        weights = dict(model.named_parameters())
        assert torch.equal(model(ids).logits, plain)  # B is zero
        for _, b_name in factors.values():
            weights[b_name].data = torch.randn(weights[b_name].shape, generator=generator) * 0.1
        with_adapters = model(ids).logits
        changes = {
            projection.name: Change(merged(projection, *(weights[n].detach() for n in factors[projection.name]), 2.0))
            for projection in projections
        }
    assert (with_adapters - plain).abs().max() > 0.1
    with applied(model, Delta(changes)):
        assert torch.allclose(model(ids).logits, with_adapters, atol=1e-4)
    assert torch.equal(model(ids).logits, plain)


def test_the_change_has_the_rank_asked_for_and_learns(family):
    model, tokenizer = family
    delta = lora(model, tokenizer, [FACT], LoraConfig(rank=2, steps=10, learning_rate=1e-2, stop_loss=0))
    assert delta.notes["losses"][-1] < delta.notes["losses"][0] - 0.5
    assert set(delta.changes) == {projection.name for projection in mlps_of(model)}
    for change in delta.changes.values():
        assert change.is_low_rank and change.low_rank.rank == 2 and change.norm() > 0
        assert change.low_rank.left.dtype == torch.float32


def test_the_seed_decides_where_the_factors_start(tiny):
    model, tokenizer = tiny
    first, again, other = (
        lora(model, tokenizer, [FACT], LoraConfig(steps=2, layers=(1,), seed=seed)) for seed in (0, 0, 1)
    )
    for name, change in first.changes.items():
        assert torch.equal(change.low_rank.right, again.changes[name].low_rank.right)
        assert not torch.allclose(change.low_rank.right, other.changes[name].low_rank.right, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_of_peft_stays_in_the_model(dtype, tokenizer):
    model = models.gpt2().to(dtype)
    model.transformer.h[1].mlp.c_fc.weight.requires_grad_(True)
    before = state_of(model)
    lora(model, tokenizer, [FACT], LoraConfig(steps=2))
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("error", "settings"), [(KeyboardInterrupt, {}), (EditError, {"learning_rate": 1e30, "stop_loss": 0})]
)
def test_nothing_stays_after_an_interruption_or_an_error(error, settings, tiny):
    model, tokenizer = tiny
    before = state_of(model)

    def interrupt(_stage, done, _total):
        if done == 2 and error is KeyboardInterrupt:
            raise KeyboardInterrupt

    with pytest.raises(error):
        lora(model, tokenizer, [FACT], LoraConfig(**settings), Surroundings(progress=interrupt))
    assert state_of(model) == before


def test_nothing_stays_when_putting_adapters_in_fails_half_way(tiny, monkeypatch):
    model, tokenizer = tiny
    before, draw, drawn = state_of(model), torch.nn.init.kaiming_uniform_, []

    def interrupted(weight, **named):
        drawn.append(weight)
        if len(drawn) > 10:
            raise KeyboardInterrupt
        return draw(weight, **named)

    monkeypatch.setattr("torch.nn.init.kaiming_uniform_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lora(model, tokenizer, [FACT])
    assert state_of(model) == before
