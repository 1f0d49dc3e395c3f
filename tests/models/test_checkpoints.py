import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from perdure.errors import ModelError, UnsafeFileError
from perdure.models import Checkpoint, build, load, resolve


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = dict(load_file(file))
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_good_folder_loads(folder):
    model, tokenizer = load(folder)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert tokenizer("abc").input_ids
    assert {path.name for path in Checkpoint.open(folder).side_files} >= {"config.json", "tokenizer.json"}


NAME = "model.layers.1.mlp.down_proj.weight"
DAMAGE = {
    "missing": (lambda tensors: tensors.pop(NAME), "missing keys"),
    "unexpected": (lambda tensors: tensors.update(stranger=torch.ones(2)), "unexpected keys"),
    "shape": (lambda tensors: tensors.update({NAME: torch.ones(3, 3)}), "cannot be built|mismatched"),
    "nan": (lambda tensors: tensors[NAME].view(-1)[0].fill_(float("nan")), "NaN or infinite"),
    "inf": (lambda tensors: tensors[NAME].view(-1)[0].fill_(float("inf")), "NaN or infinite"),
    "quantised": (lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.int8)}), "quantised weights"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_are_refused(folder, kind):
    change, message = DAMAGE[kind]
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_cut_file_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or no safetensors"):
        load(folder)


def test_pickles_are_refused_by_name(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UnsafeFileError, match=r"pytorch_model\.bin"):
        load(folder)
    (tmp_path / "weights.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(UnsafeFileError, match="pickled file"):
        load(tmp_path / "weights.pt")


def test_code_from_a_folder_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsafeFileError, match="auto_map"):
        load(folder)


def test_an_index_that_lies_is_refused(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"ghost": "model.safetensors"}}))
    with pytest.raises(ModelError, match="ghost"):
        load(folder)


@pytest.mark.parametrize("source", ["no-such-thing", "a/b/c", "../x y"])
def test_an_unknown_source_says_what_is_allowed(source):
    with pytest.raises(ModelError, match="a name of the catalogue"):
        resolve(source)


def test_dtype_is_kept_or_chosen(folder):
    rewrite(folder, lambda tensors: tensors.update({name: value.bfloat16() for name, value in tensors.items()}))
    assert load(folder)[0].dtype == torch.bfloat16
    assert load(folder, dtype="float32")[0].dtype == torch.float32
    with pytest.raises(ModelError, match="Unknown dtype"):
        load(folder, dtype="int8")


def test_build_ties_what_the_config_ties(folder):
    checkpoint = Checkpoint.open(folder)
    model, _ = build(folder, {name: checkpoint.tensor(name) for name in checkpoint.entries})
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
