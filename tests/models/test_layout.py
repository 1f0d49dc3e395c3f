import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import tiny as models
from perdure.editing.layers import check_writable
from perdure.errors import ModelError
from perdure.models import layout_of
from perdure.models.head import logits_at


def granite(padding, **more):
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.2, pad_token_id=padding, **more,
    )  # fmt: skip
    return GraniteForCausalLM(config).eval().requires_grad_(False)


def test_layout_of_each_family(family):
    model, _ = family
    layout = layout_of(model)
    assert len(layout) == models.DEPTH
    assert layout.d_model == 32
    names = dict(model.named_parameters())
    for projection in (*layout.mlp_out, *layout.attention_in[0], *layout.attention_out, *layout.mlp_matrices[0]):
        assert names[projection.name] is projection.module.weight
        assert projection.matrix.shape == (projection.d_out, projection.d_in)
    assert layout.mlp_out[0].d_out == layout.attention_out[0].d_out == 32
    assert layout.heads * layout.head_dim == layout.attention_out[0].d_in


def test_what_attention_reads_through(family):
    """Every linear map of the attention but its output, whether queries, keys and values are one matrix or three."""
    layout = layout_of(family[0])
    for block, projections in zip(layout.blocks, layout.attention_in, strict=True):
        assert {projection.d_in for projection in projections} == {layout.d_model}
        rows = sum(projection.d_out for projection in projections)
        assert rows == (layout.heads + 2 * layout.kv_heads) * layout.head_dim
        assert {id(p.module) for p in projections} <= {id(module) for module in block.modules()}
        assert not any(projection.module is out.module for projection in projections for out in layout.attention_out)


def test_head_size_may_differ_from_hidden_over_heads():
    layout = layout_of(models.qwen3())
    assert (layout.heads, layout.kv_heads, layout.head_dim, layout.d_model) == (4, 2, 16, 32)


def test_conv1d_is_transposed():
    projection = layout_of(models.gpt2()).mlp_out[0]
    assert projection.transposed
    left, right = torch.randn(32, 2), torch.randn(2, 128)
    stored_left, stored_right = projection.stored(left, right)
    torch.testing.assert_close((stored_left @ stored_right).T, left @ right)


def test_fused_experts_are_refused():
    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(ModelError, match="Mixture-of-experts"):
        layout_of(MixtralForCausalLM(config))


@pytest.mark.parametrize("padding", [0, 1])
def test_blocks_that_scale_what_they_add_are_refused(padding):
    model = granite(padding, residual_multiplier=0.22)
    with pytest.raises(ModelError, match="does not add its MLP"):
        check_writable(model, layout_of(model), 0)
    plain = granite(padding)
    check_writable(plain, layout_of(plain), 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blocks_that_norm_what_they_add_are_refused(dtype):
    config = Gemma2Config(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).to(dtype).eval()
    with pytest.raises(ModelError, match="does not add its MLP"):
        check_writable(model, layout_of(model), 0)


def test_blocks_that_add_their_mlp_are_accepted(family):
    model, _ = family
    check_writable(model, layout_of(model), 2)


@pytest.mark.parametrize("padding", [None, 0])
def test_logits_that_a_model_scales_are_its_own(padding):
    """A padding token's embedding is zero, and so are its logits, scaled or not."""
    model, ids = granite(padding, logits_scaling=8.0), torch.tensor([[5, 9, 3]])
    found = logits_at(model, torch.tensor([0]), torch.tensor([2]), input_ids=ids)
    torch.testing.assert_close(found[0], model(ids).logits[0, 2])


def test_a_model_without_blocks_is_refused():
    model = models.llama()
    model.config.num_hidden_layers = 99
    with pytest.raises(ModelError, match="no list of 99"):
        layout_of(model)
