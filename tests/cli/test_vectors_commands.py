import json

import pytest

import planted
import tiny as models
from invoking import run_text as run
from perdure.cli.vectors import _say_next
from perdure.content import cache_folder
from perdure.errors import ModelError, RequestError, SettingError, WorkspaceError
from perdure.measuring.skills import Skill, SkillMeasures
from perdure.vectors import Evidence
from shops import LAX, write_facts

SMALL = ["shots=2", "clean=6", "shuffled=4", "prefilter=null", "heads=24", "validation=3", "asked=6"]
QUICK = [word for setting in SMALL for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no cell is folded."""
    monkeypatch.setattr("perdure.cli.console.out._width", 200)


@pytest.fixture
def told(monkeypatch):
    """Any function tells something: of bytes, every answer starts with a space, shuffled or not."""
    monkeypatch.setattr(
        "perdure.vectors.studies.weigh", lambda clean, shuffled, _: Evidence(tuple(clean), tuple(shuffled), "")
    )


@pytest.fixture
def place(tmp_path, monkeypatch, tokenizer):
    """A folder with a model that answers what has a “z” in it, the same without its carrier, and a function."""
    made = planted.model(2)
    for name in ("whole", "shut"):
        made.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        made.model.layers[4].self_attn.o_proj.weight.zero_()
    pairs = [{"input": f"z{chr(97 + n)}", "output": chr(97 + n)} for n in range(20)]
    (tmp_path / "letters.json").write_text(json.dumps(pairs))
    monkeypatch.chdir(tmp_path)
    return ["--function", "letters.json", *QUICK]


@pytest.mark.parametrize("command", ["compare", "study"])
def test_help_has_examples(command):
    text = run("vectors", command, "--help")
    assert f"perdure vectors {command} v0" in text
    assert "--function" in text


def test_built_in_functions_are_listed():
    assert "present_past" in run("vectors", "list")
    found = json.loads(run("vectors", "list", "--json"))
    assert {"name": "present_past", "pairs": 75} in found


@pytest.mark.usefixtures("told")
def test_two_checkpoints_are_compared_without_a_workspace(place):
    text = run("vectors", "compare", "./whole", "./shut", *place)
    assert "1 is still there but out-shouted" in text
    assert "100% (61–100)" in text
    assert "24 of 24" in text
    assert "Next" not in text
    found = json.loads(run("vectors", "compare", "./whole", "./shut", *place, "--json"))
    assert [skill["verdict"] for skill in found["skills"]] == ["biased"]
    assert (cache_folder() / "vectors" / f"{found['id']}.json").exists()


@pytest.mark.usefixtures("told", "quick_suite")
def test_versions_are_compared_and_their_report_shows_it(place, tmp_path):
    run("init", "shop", "--model", "whole", "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    facts = write_facts(tmp_path / "facts.jsonl")
    options = ("--editor", "fine_tuning", "--set", "steps=1", "--restraint", "none", "--layers", "1")
    run("edit", facts, *options, "-w", "shop")
    text = run("vectors", "compare", "v0", "v1", *place, "-w", "shop")
    assert "Right answers after examples" in text
    assert "Next: perdure measure v1" in text
    report = json.loads(run("measure", "v1", "-w", "shop", "--json"))
    assert [skill["name"] for skill in report["skills"]["skills"]] == ["letters"]
    run("report", "v1", "-w", "shop", "--out", "page.html")
    assert 'id="skills"' in (tmp_path / "page.html").read_text()
    mixed = json.loads(run("vectors", "compare", "v0", "./shut", *place, "-w", "shop", "--json"))
    assert [skill["verdict"] for skill in mixed["skills"]] == ["biased"]
    assert (tmp_path / "shop" / "vectors" / f"{mixed['id']}.json").exists()


@pytest.mark.usefixtures("told")
def test_a_study_prints_heads_and_what_the_vectors_do(place):
    text = run("vectors", "study", "./whole", *place)
    for words in (
        "Heads that carry the skills of ./whole",
        "without examples",
        "with shuffled examples",
        "100% (61–100)",
    ):
        assert words in text
    assert len(json.loads(run("vectors", "study", "./whole", *place, "--json"))["heads"]) == 24


def test_a_study_lists_what_tells_nothing(place):
    text = run("vectors", "study", "./whole", *place)
    assert "These tell nothing about the heads" in text
    assert "letters: intact prompts are answered rightly 100% of the time, shuffled ones 100%" in " ".join(text.split())


def test_wrong_use_is_told(place, tmp_path, tokenizer):
    assert "none of 1 functions" in run("vectors", "compare", "./whole", "./shut", *place, error=RequestError)
    assert "neither a built-in" in run("vectors", "study", "./whole", "-f", "present_pas", error=RequestError)
    assert "Settings: shots" in run("vectors", "study", "./whole", "--set", "shot=1", error=SettingError)
    run("vectors", "compare", "v0", "v1", *place, error=WorkspaceError)
    run("vectors", "study", "./nowhere", *place, error=ModelError)


@pytest.mark.usefixtures("told")
def test_another_architecture_is_refused(place, tmp_path, tokenizer):
    models.llama().save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    assert "two checkpoints of one model" in run("vectors", "compare", "./whole", "./other", *place, error=ModelError)


def test_what_to_do_next_can_be_typed(capsys):
    skills = (Skill(name="letters", verdict="biased"), Skill(name="other", verdict="kept"))
    found = SkillMeasures(id="", before="v2", after="v3", heads=(), settings={}, skills=skills)
    _say_next(found, "v2", "v3", {"letters": "letters.json"})
    text = capsys.readouterr().out
    assert "perdure vectors recover v3 letters.json --from v2" in text
    assert text.count("recover") == 1
    assert "perdure measure v3" in text
