"""An adapter that a model carries: the same answers as merged weights, and nothing left behind."""

import pytest
import torch

import tiny
from perdure.deltas import Change, Delta, LowRank
from perdure.editing.applying import applied
from perdure.errors import ModelError, SettingError
from perdure.models import layout_of
from perdure.tuning.carrying import carried


def adapter(model, rank=2):
    """Random low-rank changes of every projection of the first block."""
    drawn = torch.Generator().manual_seed(3)
    layout = layout_of(model)
    matrices = (*layout.attention_in[0], layout.attention_out[0], *layout.mlp_matrices[0])
    shapes = {matrix.name: model.get_parameter(matrix.name).shape for matrix in matrices}
    factors = {
        name: LowRank(0.1 * torch.randn(rows, rank, generator=drawn), 0.1 * torch.randn(rank, columns, generator=drawn))
        for name, (rows, columns) in shapes.items()
    }
    return Delta({name: Change(each) for name, each in factors.items()})


def test_it_answers_as_merged_weights_do(family):
    model, tokenizer = family
    tokens = tokenizer("The sea is wide.", return_tensors="pt").input_ids
    delta, plain = adapter(model), model(tokens).logits
    with applied(model, delta):
        merged = model(tokens).logits
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with carried(model, delta):
        assert torch.allclose(model(tokens).logits, merged, atol=1e-4)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (merged - plain).abs().max() > 1e-3
    assert torch.equal(model(tokens).logits, plain)


def test_no_hook_stays_after_an_error(tiny):
    model, _ = tiny
    with pytest.raises(RuntimeError, match="stop"), carried(model, adapter(model)):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_what_does_not_fit_is_refused():
    model = tiny.llama()
    name = "model.layers.0.mlp.down_proj.weight"
    with (
        pytest.raises(SettingError, match="low-rank"),
        carried(model, Delta({name: Change(dense=torch.zeros(32, 48))})),
    ):
        pass
    wide = Delta({name: Change(LowRank(torch.zeros(32, 1), torch.zeros(1, 47)))})
    with pytest.raises(ModelError, match=r"\(32, 47\)"), carried(model, wide):
        pass
    with pytest.raises(ModelError, match="no tensor"), carried(model, Delta({"x.weight": wide.changes[name]})):
        pass
    assert not any(module._forward_hooks for module in model.modules())
