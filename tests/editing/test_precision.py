"""In a model of 16 bits only the model is of 16 bits: searches, losses and solves are wider."""

import pytest
import torch

import tiny as models
from perdure.editing import ValueConfig, find_values, second_moments
from perdure.editing.layers import check_writable
from perdure.editing.subjects import sample_contexts, subject_states, target_rows
from perdure.models import layout_of
from perdure.models.head import logits_at
from perdure.requests import Fact

FACTS = [Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila")]
LAYER = 1


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def half(request, family):
    return family[0].to(request.param), family[1]


def finer(numbers, dtype):
    """Whether the numbers say more than the dtype can hold."""
    return not torch.equal(numbers, numbers.to(dtype).to(numbers.dtype))


def test_losses_read_float32_logits(half):
    model, _ = half
    rows = torch.zeros(1, dtype=torch.long)
    assert logits_at(model, rows, rows, input_ids=torch.tensor([[5, 6]])).dtype == torch.float32


def test_keys_and_states_are_float64(half):
    model, tokenizer = half
    contexts = sample_contexts(2, 0)
    rows = target_rows(tokenizer, FACTS, contexts)
    states = subject_states(model, layout_of(model), rows, contexts.weights(), layers=[LAYER], last=LAYER)
    assert states.keys[LAYER].dtype == states.block.dtype == torch.float64
    assert finer(states.keys[LAYER], model.dtype)  # a mean of rounded numbers, not a rounded mean


def test_second_moments_are_summed_wide(half):
    model, tokenizer = half
    moment = second_moments(model, tokenizer, [LAYER], ["Some text to read, again and again. " * 20])[LAYER]
    assert moment.matrix.dtype == torch.float64
    assert finer(moment.matrix, model.dtype)


def test_the_search_is_float32(half):
    model, tokenizer = half
    contexts = sample_contexts(0, 0)
    anchors = torch.full((1, 32), 1.0, dtype=torch.float64)
    config = ValueConfig(steps=8, clamp=30)
    found = find_values(model, tokenizer, FACTS, LAYER, anchors, contexts=contexts, config=config)
    assert found.shift.dtype == torch.float32
    assert finer(found.shift, model.dtype)
    wide = find_values(model.float(), tokenizer, FACTS, LAYER, anchors, contexts=contexts, config=config)
    assert torch.cosine_similarity(found.shift, wide.shift) > 0.95
    assert found.losses == pytest.approx(wide.losses, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_massive_activations_do_not_hide_what_the_mlp_writes(dtype):
    """Where a state is large, bfloat16 rounds it by more than the step that the check adds."""
    model = models.llama(hidden_size=512).to(dtype)
    model.get_input_embeddings().weight[:, 3] = 2000
    check_writable(model, layout_of(model), 2)
