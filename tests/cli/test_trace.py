import json

import pytest

import planted
from invoking import run_text as run
from perdure.cli.change import parse_layers
from perdure.errors import SettingError
from shops import LAX, write_facts

QUICK = ("--set", "draws=3", "--set", "window=1")


@pytest.fixture
def place(tmp_path, tokenizer, quick_suite, monkeypatch):
    """A workspace of the planted model, entered; facts that it knows, and facts to teach."""
    planted.model(2).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    run("init", tmp_path / "shop", "--model", tmp_path / "model", "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    monkeypatch.chdir(tmp_path / "shop")
    return planted.write_facts(tmp_path / "known.jsonl"), write_facts(tmp_path / "facts.jsonl")


def test_help_has_examples():
    text = run("trace", "--help")
    assert "perdure trace known.jsonl --set draws=10" in text
    assert "--layers" in run("edit", "--help")


def test_a_trace_is_a_map_in_the_terminal_and_data_for_machines(place):
    known, _ = place
    text = run("trace", known, *QUICK)
    assert "8 facts. The answer has a probability of 0." in text
    assert "last subject token" in text
    assert "··█···" in text
    assert "Layers to edit by this trace: 1, 2 (single: 2)." in text
    found = json.loads(run("trace", known, *QUICK, "--json"))
    assert found["layer"] == 2
    assert found["facts"] == 8


def test_an_edit_takes_the_traced_layers_and_its_report_shows_the_map(place, tmp_path):
    known, facts = place
    run("trace", known, *QUICK)
    options = ("--editor", "fine_tuning", "--set", "steps=1", "--restraint", "none", "--layers", "traced", "--json")
    made = json.loads(run("edit", facts, *options))
    assert made["report"]["request"]["layers"]["by"] == "traced"
    assert made["report"]["request"]["config"]["layers"] == [1, 2]
    assert made["report"]["trace"]["layer"] == 2
    run("report", made["version"], "--out", tmp_path / "page.html")
    assert "Where facts are kept" in (tmp_path / "page.html").read_text()


def test_a_plan_says_how_the_layers_were_chosen(place):
    _, facts = place
    assert "layers: {'by': 'depth', 'layers': [1]}" in run("edit", facts, "--layers", "depth", "--dry-run")
    assert "layers: {'by': 'default'}" in run("edit", facts, "--dry-run")
    assert "perdure trace" in run("edit", facts, "--layers", "traced", "--dry-run", error=SettingError)
    assert "draw" in run("trace", "--set", "draw=1", error=SettingError)


def test_layers_are_read():
    assert [parse_layers(text) for text in ("", "traced", "4,5, 6", "7", "4,x")] == [
        None,
        "traced",
        [4, 5, 6],
        [7],
        "4,x",
    ]
