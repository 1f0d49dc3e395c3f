import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import tiny as models
from perdure.deltas.adapter_files import is_adapter, read_adapter
from perdure.editing import apply_delta
from perdure.errors import ModelError


def saved(model, folder, base="./base", **more):
    adapted = (
        models.with_lora(model) if not more else get_peft_model(model, LoraConfig(init_lora_weights=False, **more))
    )
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return adapted


def test_an_adapter_is_the_delta_that_peft_merges(family, tmp_path):
    model, _ = family
    saved(model, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    fresh = models.FAMILIES[{"gpt_neox": "neox"}.get(model.config.model_type, model.config.model_type)]()
    base, delta = read_adapter(tmp_path / "adapter")
    assert base == "./base"
    merged = PeftModel.from_pretrained(fresh, tmp_path / "adapter").merge_and_unload()
    ours = models.FAMILIES[{"gpt_neox": "neox"}.get(model.config.model_type, model.config.model_type)]()
    apply_delta(ours, delta)
    for (name, weight), (_, expected) in zip(ours.named_parameters(), merged.named_parameters(), strict=True):
        assert torch.allclose(weight, expected, atol=1e-6), name


def test_rank_stabilised_scales_are_followed(tmp_path):
    saved(models.llama(), tmp_path / "adapter", r=4, lora_alpha=3, use_rslora=True, target_modules=["down_proj"])
    _, delta = read_adapter(tmp_path / "adapter")
    merged = PeftModel.from_pretrained(models.llama(), tmp_path / "adapter").merge_and_unload()
    plain = models.llama()
    apply_delta(plain, delta)
    assert torch.allclose(
        plain.model.layers[0].mlp.down_proj.weight, merged.model.layers[0].mlp.down_proj.weight, atol=1e-6
    )


REFUSED = {
    "a DoRA": dict(r=2, target_modules=["down_proj"], use_dora=True),
    "alpha_pattern": dict(r=2, target_modules=["down_proj"], alpha_pattern={"layers.1": 3}),
    "modules_to_save": dict(r=2, target_modules=["down_proj"], modules_to_save=["lm_head"]),
    "with biases": dict(r=2, target_modules=["c_attn"], lora_bias=True, fan_in_fan_out=True),
    "no part of a plain LoRA": dict(r=2, target_modules=["embed_tokens"]),
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_lora_is_refused(message, tmp_path):
    model = models.gpt2() if message == "with biases" else models.llama()
    saved(model, tmp_path / "adapter", **REFUSED[message])
    with pytest.raises(ModelError, match=f"{message}.*merge_and_unload"):
        read_adapter(tmp_path / "adapter")


def test_damaged_adapters_are_refused(tmp_path):
    folder = tmp_path / "adapter"
    saved(models.llama(), folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    half = {name: tensor for name, tensor in tensors.items() if "layers.0.mlp.down_proj.lora_B" not in name}
    save_file(half, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no part of a plain LoRA"):
        read_adapter(folder)
    half = {name: tensor for name, tensor in tensors.items() if "layers.0.mlp.down_proj.lora_A" not in name}
    save_file(half, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="without their partner"):
        read_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(folder)


def test_an_adapter_without_its_base_is_refused(tmp_path):
    folder = tmp_path / "adapter"
    saved(models.llama(), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="names no base"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"lora_alpha": None}, (2, 4)),
        ({"lora_alpha": "x"}, (2, 4)),
        ({}, (0, 4)),
        ({}, (2,)),
        ({}, (3, 4)),
        (None, (2, 4)),
    ],
)
def test_odd_settings_and_shapes_are_told_as_damage(change, shape, tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": "b", "lora_alpha": 8}
    (tmp_path / "adapter_config.json").write_text("[1]" if change is None else json.dumps(config | change))
    name, rank = "base_model.model.x.lora_{}.weight", 0 if shape == (0, 4) else 2
    tensors = {name.format("A"): torch.ones(shape), name.format("B"): torch.ones(4, rank)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="is damaged"):
        read_adapter(tmp_path)
