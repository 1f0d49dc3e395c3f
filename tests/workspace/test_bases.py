"""What a workspace can start from besides a model folder: an adapter's folder, a live model."""

import json

import pytest
import torch

import tiny as models
from perdure import Workspace
from perdure.deltas.adapter_files import read_adapter
from perdure.editing import apply_delta
from perdure.errors import ModelError, SettingError
from perdure.models import Checkpoint, layout_of, load
from perdure.requests import Fact

FACT = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila")
QUICK = {"values": {"steps": 3}, "contexts": 0, "layers": [1]}


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    """The folder of an adapter of the tiny Llama."""
    adapted = models.with_lora(models.llama())
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_folder_becomes_a_base_with_the_adapter_merged(adapter, tiny_folder, tmp_path):
    shop = Workspace.init(tmp_path / "shop", adapter, actor="sato")
    expected, _ = load(tiny_folder)
    apply_delta(expected, read_adapter(adapter)[1])
    found = shop.archive.tensors(shop.version("v0"))
    for name, weight in expected.named_parameters():
        assert torch.equal(found[name], weight), name
    source = shop.version("v0").manifest.recipe["source"]
    assert source == f"{tiny_folder.name} with the adapter adapter merged in"  # names, and no place on this machine
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "shop"}


def test_an_adapter_whose_base_is_not_there_is_refused(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "no-such-model"}))
    with pytest.raises(ModelError, match="no-such-model"):
        Workspace.init(tmp_path / "shop", adapter)
    with pytest.raises(ModelError, match="perdure init merges"):
        Checkpoint.open(adapter)


def test_a_live_model_with_its_adapter_is_edited_through_its_merged_view(tokenizer, tmp_path):
    model = models.with_lora(models.llama())
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    shop = Workspace.init(tmp_path / "shop", model, tokenizer=tokenizer, actor="sato")
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert "default" in shop.version("v0").manifest.recipe["source"]
    version = shop.edit([FACT], config=QUICK, restraint="none", actor="sato")
    merged = shop.archive.tensors(version)
    apply_delta(model, shop.archive.solved(version))  # the same delta on the base weights below the adapter
    name = layout_of(model).mlp_out[1].name
    assert not torch.equal(shop.archive.tensors(shop.version("v0"))[name], merged[name])
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        edited = shop.load(version)[0](ids).logits
        assert torch.allclose(model(ids).logits, edited, atol=1e-3)


def test_a_live_model_needs_its_tokenizer(tmp_path):
    with pytest.raises(SettingError, match="tokenizer"):
        Workspace.init(tmp_path / "shop", models.llama())
    assert not (tmp_path / "shop").exists()
