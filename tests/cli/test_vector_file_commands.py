import json
import re

import pytest

import vector_sample as sample
from invoking import run, run_json
from perdure.errors import IntegrityError, ModelError, RefusedError, RequestError, SettingError, WorkspaceError
from perdure.workspace import sharing


@pytest.fixture
def place(tmp_path, tiny_folder, quick_suite, monkeypatch):
    """A folder with two workspaces of one model, `ours` and `theirs`, and a function's file."""
    monkeypatch.setattr(sharing, "traits_of", sample.traits_of)
    monkeypatch.delenv("PERDURE_USER", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("ours", "theirs"):
        run("init", name, "--model", tiny_folder, "--as", "sato")
    rows = [pair.model_dump() for pair in sample.function().pairs]
    (tmp_path / "plurals.json").write_text(json.dumps(rows))
    return tmp_path


def export(*more):
    words = ("vectors", "export", "v0", "plurals.json", "plurals.vector.safetensors", "-w", "ours")
    return run_json(*words, *sample.QUICK_OPTIONS, *more)


@pytest.mark.parametrize("command", ["export", "import", "trust", "key"])
def test_every_command_explains_itself_with_an_example(command):
    shown = run("vectors", command, "--help").output
    assert len(shown) > 200
    assert f"perdure vectors {command}" in " ".join(shown.split())


def test_the_whole_way(place):
    made = export("--as", "sato")
    assert (made["name"], made["signer"], len(made["heads"])) == ("plurals", "sato", 3)
    finger = run_json("vectors", "key", "-w", "ours")["fingerprint"]
    assert made["fingerprint"] == finger
    file = place / "plurals.vector.safetensors"
    refused = run("vectors", "import", file, "-w", "theirs", error=RefusedError)
    assert refused.exception.exit_code == 6
    assert f"perdure vectors trust {finger}" in str(refused.exception)
    assert run_json("vectors", "trust", finger, "-w", "theirs", "--as", "mori")["trusted"] == [finger]
    taken = run_json("vectors", "import", file, "-w", "theirs", "--as", "mori")
    assert taken["versions"] == ["v0"]
    assert taken["vector"] == made["vector"]
    assert [path.name for path in (place / "theirs/vectors/shared").iterdir()] == [
        f"{made['vector']}.vector.safetensors"
    ]
    log = run_json("log", "-w", "theirs")
    assert [(row["action"], row["actor"]) for row in log][-2:] == [("trust signer", "mori"), ("import vector", "mori")]
    assert "import vector" in run("log", "-w", "theirs").output
    assert run_json("verify", "-w", "theirs")["ok"] is True
    run("vectors", "trust", finger, "--withdraw", "-w", "theirs")
    run("vectors", "import", file, "-w", "theirs", error=RefusedError)


def test_what_people_read(place):
    words = ("vectors", "export", "v0", "plurals.json", "plurals.vector.safetensors", "-w", "ours")
    told = " ".join(run(*words, *sample.QUICK_OPTIONS).output.split())
    assert "plurals: heads (layer.head)" in told
    assert "zero-shot" in told and "shuffled" in told
    assert "It is in plurals.vector.safetensors" in told
    taken = " ".join(run("vectors", "import", "plurals.vector.safetensors", "-w", "ours").output.split())
    assert re.search(r"Imported as [0-9a-f]{12}; it is of v0\.", taken)
    shown = run("vectors", "key", "-w", "ours").output
    assert re.search(r"^([0-9a-f]{4} ){4}   in full: [0-9a-f]{64}$", shown.strip())
    finger = shown.split()[-1]
    assert f"{shown[:19]} is trusted. Trusted signers: 1." in run("vectors", "trust", finger, "-w", "ours").output


def test_nothing_of_the_examples_nor_of_who_exported_is_in_the_file(place):
    export()
    data = (place / "plurals.vector.safetensors").read_bytes()
    assert sample.SECRET.encode() not in data
    assert b'\\"signer\\":null' in data
    assert b"PRIVATE" not in data


def test_refusals_have_their_exit_codes(place):
    assert run("vectors", "key", "-w", "ours", error=WorkspaceError).exception.exit_code == 5
    export()
    words = ("vectors", "export", "v0", "plurals.json", "plurals.vector.safetensors", "-w", "ours")
    assert run(*words, error=SettingError).exception.exit_code == 2
    run(*words[:3], "nothing", "x.safetensors", "-w", "ours", error=RequestError)
    run(*words[:4], "x.safetensors", "-w", "ours", "--set", "head=3", error=SettingError)
    run("vectors", "trust", "abcd", "-w", "ours", error=SettingError)
    (place / "x.pt").write_bytes(b"\x80\x04N.")
    assert run("vectors", "import", "x.pt", "-w", "ours", error=ModelError).exception.exit_code == 4
    data = bytearray((place / "plurals.vector.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "x.safetensors").write_bytes(data)
    assert run("vectors", "import", "x.safetensors", "-w", "ours", error=IntegrityError).exception.exit_code == 7


def test_a_vector_of_another_model_needs_a_word(place, tokenizer):
    import tiny
    from perdure import Workspace

    Workspace.init(place / "other", tiny.llama(seed=4), tokenizer=tokenizer, actor="sato")
    finger = export()["fingerprint"]
    run("vectors", "trust", finger, "-w", "other")
    words = ("vectors", "import", "plurals.vector.safetensors", "-w", "other")
    assert "--other-weights" in str(run(*words, error=ModelError).exception)
    told = " ".join(run(*words, "--other-weights").output.split())
    assert "a model with other weights than any version here" in told
