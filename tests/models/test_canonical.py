import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny as models
from perdure.errors import ModelError
from perdure.models import Checkpoint, load
from perdure.models.canonical import canonical, fits, save_model


def folder_of(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    save_file(tensors, file, metadata={"format": "pt"})


def refuse_to_build(*_args, **_kwargs):
    raise AssertionError("the model was built")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_a_checkpoint_under_its_own_names_is_taken_without_building_the_model(name, tokenizer, tmp_path, monkeypatch):
    checkpoint = Checkpoint.open(folder_of(models.FAMILIES[name](), tokenizer, tmp_path / "base"))
    monkeypatch.setattr("perdure.models.canonical.build", refuse_to_build)
    assert fits(checkpoint)
    with canonical(checkpoint, tmp_path) as found:
        assert found is checkpoint


@pytest.mark.parametrize("name", ["neox", "gpt2"])
def test_other_names_become_those_of_the_running_model(name, tokenizer, tmp_path):
    """NeoX stores its head under another name; GPT-2 lies on the hub without the prefix of its decoder."""
    model = models.FAMILIES[name]()
    folder = folder_of(model, tokenizer, tmp_path / "base")
    rewrite(folder, lambda tensors: {name.removeprefix("transformer."): t for name, t in tensors.items()})
    checkpoint = Checkpoint.open(folder)
    assert not fits(checkpoint)
    with canonical(checkpoint, tmp_path) as found:
        for name in found.entries:
            assert torch.equal(found.tensor(name), model.get_parameter(name))
        kept = found.folder
    assert not kept.exists()


WRONG = {
    "missing": lambda t: {name: v for name, v in t.items() if "layers.1.mlp.up_proj" not in name},
    "shape": lambda t: {name: v[1:].clone() if name == "model.norm.weight" else v for name, v in t.items()},
    "stranger": lambda t: {**t, "stranger": torch.ones(2)},
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_the_config_is_refused(tokenizer, tmp_path, kind):
    folder = folder_of(models.llama(), tokenizer, tmp_path / "base")
    rewrite(folder, WRONG[kind])
    checkpoint = Checkpoint.open(folder)
    assert not fits(checkpoint)
    with pytest.raises(ModelError, match=r"do not fit|cannot be built"), canonical(checkpoint, tmp_path):
        pass


def test_a_config_that_is_not_understood_is_refused(tokenizer, tmp_path):
    folder = folder_of(models.llama(), tokenizer, tmp_path / "base")
    (folder / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(ModelError, match="cannot be built"):
        fits(Checkpoint.open(folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_live_model_is_saved_as_it_runs(family, dtype, tmp_path):
    model, tokenizer = family
    model = model.to(dtype)
    (tmp_path / "out").mkdir()
    assert fits(save_model(model, tokenizer, tmp_path / "out"))
    loaded, _ = load(tmp_path / "out")
    for (name, weight), (_, found) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(weight, found), name


def test_a_live_model_with_an_adapter_is_saved_merged(family, tmp_path):
    model, tokenizer = family
    adapted = models.with_lora(model)
    (tmp_path / "out").mkdir()
    save_model(adapted, tokenizer, tmp_path / "out")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(load(tmp_path / "out")[0](ids).logits, adapted(ids).logits, atol=1e-4)
