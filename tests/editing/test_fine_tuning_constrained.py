import pytest
import torch

import tiny as models
from perdure.editing.fine_tuning_constrained import ConstrainedConfig, clamp_change, fine_tuning_constrained
from perdure.errors import SettingError
from perdure.models import layout_of
from perdure.requests import Fact

FACT = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")


def test_weights_beyond_the_radius_come_back_to_it():
    before = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.5, -1.0]], dtype=torch.float64)
    moved = before + torch.tensor([[0.3, -0.3, 0.05], [-0.1, 0.0, 7.0]], dtype=torch.float64)
    held = clamp_change(moved, before, 0.1)
    expected = before + torch.tensor([[0.1, -0.1, 0.05], [-0.1, 0.0, 0.1]], dtype=torch.float64)
    assert torch.allclose(held, expected, rtol=0, atol=1e-15)


def test_it_is_the_nearest_point_and_stays_where_it_is():
    generator = torch.Generator().manual_seed(0)
    before, moved, other = torch.randn(3, 8, 5, dtype=torch.float64, generator=generator)
    held = clamp_change(moved, before, 0.2)
    assert torch.equal(clamp_change(held, before, 0.2), held)
    inside = before + other.clamp(-0.2, 0.2)
    assert float(((moved - held) * (inside - held)).sum()) <= 1e-12  # a projection onto a convex set


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_weight_moves_further_than_the_radius_and_the_bound_is_used(dtype, tokenizer):
    config = ConstrainedConfig(steps=20, learning_rate=1e-2, radius=3e-3)
    delta = fine_tuning_constrained(models.llama().to(dtype), tokenizer, [FACT], config)
    change = next(iter(delta.changes.values())).dense
    assert float(change.abs().max()) == pytest.approx(3e-3, abs=1e-6)
    assert float((change.abs() > 2.99e-3).float().mean()) > 0.2
    assert delta.notes["losses"][-1] < delta.notes["losses"][0]


def test_the_radius_follows_the_matrix_when_it_is_not_given(tiny):
    model, tokenizer = tiny
    delta = fine_tuning_constrained(model, tokenizer, [FACT], ConstrainedConfig(steps=9, learning_rate=0.1))
    weight = layout_of(model).mlp_out[0].matrix.double()
    limit = 0.05 * float(weight.pow(2).mean().sqrt())
    assert delta.notes["radii"] == [pytest.approx(limit)]
    assert float(next(iter(delta.changes.values())).dense.abs().max()) == pytest.approx(limit, rel=1e-5)


def test_down_projections_of_the_chosen_layers_change_and_nothing_else(family):
    model, tokenizer = family
    layout = layout_of(model)
    one = fine_tuning_constrained(model, tokenizer, [FACT], ConstrainedConfig(steps=1))
    assert list(one.changes) == [layout.mlp_out[0].name]
    two = fine_tuning_constrained(model, tokenizer, [FACT], ConstrainedConfig(steps=1, layers=(2, 0)))
    assert list(two.changes) == [layout.mlp_out[layer].name for layer in (0, 2)]


def test_layers_outside_the_model_are_refused(tiny):
    model, tokenizer = tiny
    with pytest.raises(SettingError, match="0 to 3"):
        fine_tuning_constrained(model, tokenizer, [FACT], ConstrainedConfig(layers=(4,)))
