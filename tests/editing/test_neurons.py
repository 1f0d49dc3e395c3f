"""Neurons as rows: every number of every MLP matrix belongs to one neuron, whichever way the architecture stores it."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

import tiny
from perdure.editing.neurons import neurons_of
from perdure.models import layout_of


def phi3():
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0
    )
    return Phi3ForCausalLM(config).eval().requires_grad_(False)


MODELS = {**tiny.FAMILIES, "square": lambda: tiny.llama(intermediate_size=32), "phi3": phi3}


@pytest.fixture(params=MODELS)
def layout(request):
    return layout_of(MODELS[request.param]())


def changes_of(layout, layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {m.name: torch.randn(m.module.weight.shape, generator=generator) for m in layout.mlp_matrices[layer]}


@pytest.mark.parametrize("kind", ["unit", "row"])
def test_rows_and_back_are_the_same_bits(layout, kind):
    changes = changes_of(layout, 1)
    for group in neurons_of(layout, [1], kind):
        rows = group.rows(changes)
        assert len(rows) == group.count
        for name, back in group.matrices_of(rows).items():
            assert torch.equal(back, changes[name])


def test_a_unit_is_what_one_inner_number_hangs_on(layout):
    """The MLP's output depends on unit 5 no more once its row of numbers is taken out of every matrix."""
    group = neurons_of(layout, [0], "unit")[0]
    assert group.count == layout.d_ff
    rows = group.rows({m.name: m.module.weight.detach() for m in group.matrices})
    alone = torch.zeros_like(rows)
    alone[5] = rows[5]
    for name, stored in group.matrices_of(alone).items():
        matrix = next(part for part in group.matrices if part.name == name)
        only = stored.T if matrix.transposed else stored
        if matrix.name == layout.mlp_out[0].name:
            assert only.abs().sum(0).nonzero().flatten().tolist() == [5]
            assert torch.equal(only[:, 5], matrix.matrix[:, 5])
        else:
            made = only.abs().sum(1).nonzero().flatten()
            assert (made % layout.d_ff == 5).all()
            assert len(made) == matrix.d_out // layout.d_ff


def test_rows_are_one_group_a_matrix(layout):
    groups = neurons_of(layout, [0, 1], "row")
    assert [group.matrices[0].name for group in groups] == [m.name for l in (0, 1) for m in layout.mlp_matrices[l]]
    assert all(group.count == group.matrices[0].d_out for group in groups)


@pytest.mark.parametrize("kind", ["unit", "row"])
def test_sums_are_those_of_the_rows(layout, kind):
    changes = changes_of(layout, 0)
    for group in neurons_of(layout, [0], kind):
        total = sum(group.sums(name, changes[name]) for name in (m.name for m in group.matrices))
        torch.testing.assert_close(total, group.rows(changes).sum(1), rtol=1e-4, atol=1e-4)
