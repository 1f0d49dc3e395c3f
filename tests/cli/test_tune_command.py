"""perdure tune on the command line: files in, versions out, told in words and in JSON."""

import json

import pytest

import tiny
from invoking import run, run_json, run_text
from perdure.errors import RequestError, SettingError
from perdure.workspace import Workspace

QUICK = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "learning_rate=0.01", "--no-measure"]
WORDS = ["river", "stone", "cloud", "bread", "lamp", "winter", "garden", "paper", "silver", "window"]


@pytest.fixture
def place(tmp_path):
    Workspace.init(tmp_path / "shop", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    return tmp_path


def task_file(path, change=str.upper):
    rows = [{"prompt": f"{word}:", "completion": change(word)} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_version_for_each_task(place):
    first = task_file(place / "upper.jsonl")
    second = task_file(place / "letter.jsonl", lambda word: word[0])
    shop = ["--workspace", place / "shop", "--as", "kato"]
    found = run_json("tune", first, second, *shop, *QUICK, "--plain")
    assert [made["version"] for made in found] == ["v1", "v2"]
    listed = run_json("versions", "--workspace", place / "shop")
    assert [row["made with"] for row in listed] == ["base", "lora, task upper", "lora, task letter"]


def test_what_is_told(place):
    file = task_file(place / "upper.jsonl")
    shop = ["--workspace", place / "shop", "--as", "kato"]
    held = ["--regularize", "distillation=0.5", "--regularize", "l2sp", "--set", "averaging.form=ratio"]
    said = run_text("tune", file, *shop, *QUICK, *held)
    assert "v1: learnt upper from 7 rows (lora), held by distillation, l2sp, averaging ratio" in " ".join(said.split())
    recipe = Workspace.open(place / "shop").version("v1").manifest.recipe
    assert [each["weight"] for each in recipe["config"]["regularizers"]] == [0.5, 0.01]


def test_a_dry_run_computes_and_stores_nothing(place):
    file = task_file(place / "upper.jsonl")
    said = run_text("tune", file, "--workspace", place / "shop", "--dry-run", "--set", "rank=4")
    assert "Would tune v0 with 1 task;" in said
    assert "rank: 4" in said
    [plan] = run_json("tune", file, "--workspace", place / "shop", "--dry-run")
    assert plan["recipe"]["task"]["rows"] == 7
    assert len(Workspace.open(place / "shop").archive.versions()) == 1


def test_wrong_settings_and_rows_are_told_before_anything_is_computed(place):
    file = task_file(place / "upper.jsonl")
    shop = ["--workspace", place / "shop"]
    assert "leave out --regularize" in run_text("tune", file, *shop, "--plain", "-r", "l2sp", error=SettingError)
    assert "NAME=WEIGHT" in run_text("tune", file, *shop, "-r", "l2sp=much", error=SettingError)
    assert "rnak" in run_text("tune", file, *shop, "--set", "rnak=4", error=SettingError)
    file.write_text('{"prompt": "a", "completion": ""}\n{"prompt": 3, "completion": "b"}\n')
    with_both = run("tune", file, *shop, error=RequestError).exception
    assert len(with_both.problems) == 2


def test_it_is_told_that_an_earlier_task_left_nothing_to_hold(place):
    first, second, third = (task_file(place / f"{name}.jsonl") for name in ("upper", "other", "third"))
    shop = ["--workspace", place / "shop", "--as", "kato", *QUICK]
    run("tune", first, *shop, "--plain")
    said = " ".join(run_text("tune", second, *shop, "--regularize", "kfac").split())
    assert "1 of the tasks before it left no information for kfac" in said
    assert "left no information" in " ".join(run_text("tune", third, *shop, "--regularize", "kfac").split())


def test_every_task_held_is_not_told(place):
    shop = ["--workspace", place / "shop", "--as", "kato", *QUICK, "--regularize", "kfac"]
    said = run_text("tune", task_file(place / "upper.jsonl"), task_file(place / "again.jsonl"), *shop)
    assert "v2: learnt again" in said
    assert "left no information" not in said
