import json

import pytest
from typer.testing import CliRunner

from perdure.cli.app import app
from perdure.editing.presets import Preset, Published, Shape
from perdure.errors import SettingError, UnknownNameError
from shops import write_facts

SETTINGS = {"layers": [2], "values": {"steps": 3, "clamp": 2.0}, "contexts": 0}
TINY = Preset("tiny-llama", "Tiny-Llama", Shape(4, 32, 48, 4, 2), {"memit": Published("a/b", SETTINGS)})


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def facts(tiny_shop, tmp_path, monkeypatch):
    """A workspace of a model whose shape has a preset, and a file of facts."""
    monkeypatch.setattr("perdure.editing.presets.PRESETS", {"tiny-llama": TINY})
    monkeypatch.chdir(tmp_path / "shop")
    return write_facts(tmp_path / "facts.jsonl")


def plan(*words):
    return json.loads(run(*words, "--dry-run", "--json"))


def test_a_preset_is_the_ground_and_set_comes_on_top(facts):
    recipe = plan("edit", facts, "--preset", "tiny-llama")["recipe"]
    assert recipe["preset"] == "tiny-llama"
    assert recipe["config"]["layers"] == [2]
    assert recipe["config"]["values"]["steps"] == 3
    config = plan("edit", facts, "--preset", "tiny-llama", "--set", "values.steps=7")["recipe"]["config"]
    assert (config["values"]["steps"], config["values"]["clamp"], config["layers"]) == (7, 2.0, [2])


def test_the_shape_gives_a_hint_and_nothing_more(facts, monkeypatch):
    monkeypatch.setattr("perdure.workspace.workspace.Workspace.load", lambda *_: pytest.fail("a model was loaded"))
    assert "has the shape of Tiny-Llama; published settings: --preset tiny-llama" in run("edit", facts, "--dry-run")
    plain = plan("edit", facts)
    assert plain["preset_hint"] == "tiny-llama"
    assert plain["recipe"]["preset"] is None
    assert plain["recipe"]["config"]["layers"] is None
    assert plan("edit", facts, "--preset", "tiny-llama")["preset_hint"] is None
    assert plan("edit", facts, "--editor", "rome")["preset_hint"] is None


def test_a_version_says_which_preset_it_was_made_with(facts):
    run("edit", facts, "--preset", "tiny-llama", "--restraint", "none", "--no-measure")
    recipe = json.loads(run("show", "v1", "--json"))["recipe"]
    assert recipe["preset"] == "tiny-llama"
    assert recipe["config"]["values"]["clamp"] == 2.0


def test_a_preset_that_does_not_fit_is_refused(facts):
    with pytest.raises(UnknownNameError, match="Known: tiny-llama"):
        run("edit", facts, "--preset", "llama")
    with pytest.raises(SettingError, match="only for memit"):
        run("edit", facts, "--preset", "tiny-llama", "--editor", "rome")


def test_methods_show_them():
    rows = {row["name"]: row for row in json.loads(run("methods", "--json"))}
    assert rows["memit"]["presets"]["gpt2-xl"]["moment_weight"] == 20000
    assert "llama-2-7b" not in rows["alphaedit"]["presets"]
    assert rows["prune"]["presets"] == {}
    assert "moment_weight=20000.0" in run("methods").replace("\n", "")
