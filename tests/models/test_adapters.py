import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model

import tiny as models
from perdure.errors import ModelError
from perdure.models import complete, layout_of, score_targets
from perdure.models.adapters import bare, parameters_by_name, plain_view
from perdure.models.layout import tensors_of

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def adapted(request, family):
    """A random model of each architecture with LoRA on its MLP and attention, and its names before."""
    model = family[0].to(request.param)
    names = list(dict(model.named_parameters()))
    return models.with_lora(model), names


def snapshot(model):
    state = {
        name: (weight, weight.data_ptr(), weight.clone(), weight.requires_grad)
        for name, weight in model.named_parameters()
    }
    return state, {name: (module, module.training) for name, module in model.named_modules()}


def assert_as_it_was(model, before):
    state, modules = before
    found = dict(model.named_modules())
    assert found.keys() == modules.keys()
    assert all(found[name] is module and module.training == mode for name, (module, mode) in modules.items())
    weights = dict(model.named_parameters())
    assert weights.keys() == state.keys()
    for name, (weight, pointer, values, learns) in state.items():
        assert weights[name] is weight and weight.data_ptr() == pointer
        assert torch.equal(weight, values) and weight.requires_grad == learns


def test_the_plain_view_is_the_merged_model_and_leaves_no_trace(adapted):
    model, names = adapted
    model.train()
    before = snapshot(model)
    with plain_view(model) as plain:
        assert list(dict(plain.named_parameters())) == names
        assert not plain.training
        assert not any(weight.requires_grad for weight in plain.parameters())
        merged = logits(plain)
        with plain_view(model) as inner:
            assert inner is plain
            assert torch.equal(logits(inner), merged)
    assert_as_it_was(model, before)
    loose = 1e-4 if model.dtype == torch.float32 else 0.1
    assert torch.allclose(logits(model.eval()), merged, atol=loose)
    assert torch.equal(logits(model.merge_and_unload()), merged)


def test_an_error_inside_leaves_no_trace(adapted):
    model, _ = adapted
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="stop"), plain_view(model):
        raise RuntimeError("stop")
    assert_as_it_was(model, before)


def test_names_and_layout_are_those_of_the_base(adapted):
    model, names = adapted
    assert list(parameters_by_name(model)) == names
    layout = layout_of(model)
    for projection in (*layout.mlp_out, *layout.attention_out):
        assert parameters_by_name(model)[projection.name] is projection.module.weight
    with plain_view(model) as plain:
        assert layout_of(plain) is layout
    with pytest.raises(ModelError, match="another model"):
        tensors_of(model, ["no.such.weight"])


def test_adapters_that_are_off_or_merged_already_are_seen_as_such(tokenizer):
    model = models.with_lora(models.llama())
    with model.disable_adapter():
        off = logits(model)
        with plain_view(model) as plain:
            assert torch.equal(logits(plain), off)
    assert not torch.equal(logits(model), off)
    model.merge_adapter()
    merged = logits(model)
    with plain_view(model) as plain:
        assert torch.equal(logits(plain), merged)


def test_several_adapters_and_their_biases_add_up():
    base = models.gpt2()
    config = LoraConfig(r=2, target_modules=["c_proj"], init_lora_weights=False, fan_in_fan_out=True, lora_bias=True)
    model = get_peft_model(base, config, adapter_name="one")
    model.add_adapter("two", config)
    model.base_model.set_adapter(["one", "two"])
    running = logits(model.eval())
    with plain_view(model) as plain:
        assert torch.allclose(logits(plain), running, atol=1e-4)
    model.set_adapter("one")
    assert not torch.allclose(logits(model), running, atol=1e-4)


def test_adapters_put_into_the_model_itself_are_seen():
    """transformers' own `add_adapter` makes no PeftModel."""
    model = models.llama()
    names = list(dict(model.named_parameters()))
    model.add_adapter(LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False))
    assert bare(model) is model
    running = logits(model.eval())
    with plain_view(model) as plain:
        assert list(dict(plain.named_parameters())) == names
        assert torch.allclose(logits(plain), running, atol=1e-4)


def test_a_model_with_an_adapter_is_scored_and_writes(tokenizer):
    model = models.with_lora(models.llama())
    pairs, prompts = [("The Nile is in", "Egypt"), ("Ada speaks", "Danish")], ["The Nile", "Ada"]
    scores, texts = score_targets(model, tokenizer, pairs), complete(model, tokenizer, prompts)
    with plain_view(model) as plain:
        for found, expected in zip(scores, score_targets(plain, tokenizer, pairs), strict=True):
            assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-3)
        assert complete(plain, tokenizer, prompts) == texts


REFUSED = {
    "not a plain sum": LoraConfig(r=2, target_modules=["down_proj"], use_dora=True),
    "not added to the weight": IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
    "trained .* as a whole": LoraConfig(r=2, target_modules=["down_proj"], modules_to_save=["lm_head"]),
    "works on the prompt": PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2),
    "tied": LoraConfig(r=2, target_modules=["embed_tokens"]),
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_sum_is_refused(message):
    model = get_peft_model(models.llama(), REFUSED[message])
    before = snapshot(model)
    with pytest.raises(ModelError, match=message), plain_view(model):
        pass
    assert_as_it_was(model, before)
