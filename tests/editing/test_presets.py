import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTJConfig, LlamaConfig

from perdure.editing.presets import PRESETS, preset_for, preset_settings, presets_of
from perdure.errors import SettingError, UnknownNameError
from perdure.models import layout_of
from perdure.registry import editors

MODELS = {
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "gpt-j-6b": GPTJConfig(),
    "llama-2-7b": LlamaConfig(num_key_value_heads=32),
    "llama-3-8b": LlamaConfig(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256),
}
CASES = [(preset, editor) for preset in PRESETS.values() for editor in preset.published]


def layout(config):
    with torch.device("meta"):
        return layout_of(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize(("preset", "editor"), CASES, ids=lambda case: getattr(case, "name", case))
def test_every_preset_is_settings_of_its_editor(preset, editor):
    config = editors.get(editor).config.model_validate(preset.published[editor].settings)
    layers = [config.layer] if editor == "rome" else config.layers
    assert all(0 <= layer < preset.shape.layers for layer in layers)
    assert preset.published[editor].source.count("/") == 1


def test_the_table_says_what_was_published():
    """Lines of the settings files, read once more."""
    assert preset_settings("llama-2-7b", "memit") == {
        "layers": [4, 5, 6, 7, 8],
        "values": {
            "steps": 25,
            "learning_rate": 0.5,
            "betas": (0.9, 0.999),
            "clamp": 4.0,
            "weight_decay": 0.001,
            "kl_weight": 0.0625,
        },
        "moment_weight": 15000.0,
    }
    assert preset_settings("gpt2-xl", "memit")["moment_weight"] == 20000.0
    assert preset_settings("gpt2-xl", "rome")["layer"] == 17
    assert preset_settings("llama-3-8b", "memit")["values"]["learning_rate"] == 0.1
    alphaedit = preset_settings("gpt-j-6b", "alphaedit")
    assert (alphaedit["layers"], alphaedit["threshold"], alphaedit["l2"]) == ([3, 4, 5, 6, 7, 8], 0.02, 10.0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_is_recognised_by_its_shape(name):
    assert preset_for(layout(MODELS[name])).name == name


def test_another_shape_is_not_recognised(tiny):
    assert preset_for(layout_of(tiny[0])) is None
    assert preset_for(layout(LlamaConfig(num_key_value_heads=8))) is None
    assert preset_for(layout(LlamaConfig(num_hidden_layers=31, num_key_value_heads=32))) is None


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Known: .*llama-3-8b.* Did you mean 'llama-2-7b'"):
        preset_settings("llama-2-7", "memit")


def test_a_preset_that_says_nothing_about_the_editor_names_those_that_do():
    with pytest.raises(SettingError, match=r"no settings for alphaedit, only for rome, memit\. .*llama-3-8b"):
        preset_settings("llama-2-7b", "alphaedit")
    with pytest.raises(SettingError, match="settings for fine_tuning: none"):
        preset_settings("gpt2-xl", "fine_tuning")
    assert "llama-2-7b" not in [preset.name for preset in presets_of("alphaedit")]
