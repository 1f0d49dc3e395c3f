"""perdure plan: what is told before training, the command at its end, and that nothing but caches is written."""

import json
import shlex

import pytest

import vector_sample
from invoking import run, run_json, run_text
from perdure.errors import RefusedError, SettingError
from perdure.workspace import Workspace, advice, imprints
from perdure.workspace.advice import Advisor

WORDS = [f"{a}{b}" for a in "abcdef" for b in "ghijk"]


@pytest.fixture
def shop(tmp_path, tiny_folder, quick_suite, monkeypatch):
    """A workspace of the tiny model, two tasks beside it, and made-up skills of which all but one can be done."""
    functions = [vector_sample.function(name) for name in ("one", "two", "weak")]
    monkeypatch.setattr("perdure.measuring.skill_comparison.study", vector_sample.study)
    monkeypatch.setattr(advice, "built_in_functions", lambda: functions)
    monkeypatch.setattr("perdure.workspace.tuning._HEAD_SKILLS", ("upper",))  # of the small suite
    monkeypatch.setattr(imprints, "_COULD", 0.0)
    Workspace.init(tmp_path / "shop", tiny_folder, actor="mori")
    write(tmp_path / "upper.jsonl", "Write it in capitals.", str.upper)
    write(tmp_path / "last.jsonl", "Name the last letter.", lambda word: word[-1])
    return tmp_path


def write(path, instruction, change):
    rows = [{"instruction": instruction, "input": word, "output": change(word)} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def objects(folder):
    return {
        path.relative_to(folder).as_posix()
        for part in ("objects", "versions")
        for path in (folder / part).rglob("*")
    }  # fmt: skip


def test_the_report_ends_with_a_command_that_tunes(shop):
    before = objects(shop / "shop")
    told = run_text("plan", shop / "upper.jsonl", "--workspace", shop / "shop")
    for words in (
        "21 train",
        "does it",
        "group",
        "g1: is the first",
        "What it may put at risk",
        "What it costs",
        "Settings",
    ):
        assert words in told or words in " ".join(told.split()), words
    assert "step of" in " ".join(told.split())
    command = shlex.split(told.strip().splitlines()[-1])
    assert command[:2] == ["perdure", "tune"]
    planned = run_json(*command[1:], "--dry-run")
    config = planned[0]["recipe"]["config"]
    assert config["batch_size"] == 4
    assert config["learning_rate"] == 5e-4
    assert config["averaging"]["form"] == "sound"
    assert [version.name for version in Workspace.open(shop / "shop").archive.versions()] == ["v0"]
    assert objects(shop / "shop") == before


def test_the_same_for_machines_and_read_once(shop, monkeypatch):
    first = run_json("plan", shop / "upper.jsonl", shop / "last.jsonl", "--no-probe", "--workspace", shop / "shop")
    monkeypatch.setattr(imprints, "read_imprint", lambda *_, **__: pytest.fail("read again"))
    monkeypatch.setattr(advice, "answer_task", lambda *_, **__: pytest.fail("asked again"))
    found = run_json("plan", shop / "upper.jsonl", shop / "last.jsonl", "--no-probe", "--workspace", shop / "shop")
    assert [one["risks"] for one in found] == [one["risks"] for one in first]
    upper, last = found
    assert (upper["task"], upper["rows"]) == ("upper", {"train": 21, "validation": 3, "test": 6})
    assert upper["cost"]["seconds"] is None
    assert {risk["name"] for risk in upper["risks"]} == {"one", "two", "weak"}
    assert all(-1 <= risk["overlap"] <= 1 and -1 <= risk["likeness"] <= 1 for risk in upper["risks"])
    # the second is planned as if the first were learnt
    assert last["risks"][0]["kind"] == "task"
    assert last["risks"][0]["name"] == "upper"
    assert last["group"]["group"] in ("g1", "g2")
    assert upper["already"]["n"] == 9
    assert upper["command"].startswith("perdure tune ")


def test_what_is_refused_and_what_is_as_given(shop):
    found, = run_json(
        "plan", shop / "upper.jsonl", "--no-probe", "--set", "max_tokens=20", "--set", "averaging.groups=2",
        "--workspace", shop / "shop",
    )  # fmt: skip
    assert found["limit"] == 20
    assert len(found["refused"]) == 24
    assert "upper.jsonl:" in found["refused"][0]
    given = {one["name"]: one["reason"] for one in found["proposals"]}
    assert given["max_tokens"] == "as given"
    assert found["settings"]["averaging"]["form"] == "sound"
    assert found["settings"]["averaging"]["groups"] == 2
    assert "--set averaging.groups=2" in found["command"]


def test_a_lineage_is_asked_for_its_tasks(shop):
    workspace = shop / "shop"
    run("tune", shop / "upper.jsonl", "--plain", "--set", "max_steps=1", "--no-measure", "--workspace", workspace)
    rows = [json.loads(row) for row in (shop / "upper.jsonl").read_text().splitlines()]
    against = "".join(json.dumps({**row, "output": row["output"][::-1]}) + "\n" for row in rows)
    (shop / "lower.jsonl").write_text(against)
    (found,) = run_json("plan", shop / "lower.jsonl", "--no-probe", "--test=0", "--workspace", workspace)
    assert found["version"] == "v1"
    [duplicates] = found["duplicates"]
    assert duplicates["task"] == "upper"
    assert duplicates["rows"] == duplicates["conflicting"] > 0
    assert found["pool"]["value"] is True
    assert found["group"]["members"] == ["upper"]
    assert "--test=0" in found["command"]
    assert "--pool" in shlex.split(found["command"])
    assert found["settings"]["regularizers"] == []
    told = run_text("plan", shop / "lower.jsonl", "--no-probe", "--test=0", "--workspace", workspace)
    assert "with another answer" in " ".join(told.split())
    run("reject", "v1", "--as", "kato", "--reason", "no", "--workspace", workspace)
    run("plan", shop / "lower.jsonl", "--on", "v1", "--workspace", workspace, error=RefusedError)


def test_bad_rows_are_told_and_left_out(shop):
    with (shop / "upper.jsonl").open("a") as file:
        file.write('{"instruction": "x", "output": ""}\n')
    (found,) = run_json("plan", shop / "upper.jsonl", "--no-probe", "--workspace", shop / "shop")
    assert any("bad rows, left out: 1" in note for note in found["notes"])
    assert "--skip-bad" in found["command"]


def test_unknown_settings_are_refused_before_anything_is_read(shop, monkeypatch):
    monkeypatch.setattr(Advisor, "__init__", lambda *_: pytest.fail("loaded"))
    run("plan", shop / "upper.jsonl", "--set", "rnak=4", "--workspace", shop / "shop", error=SettingError)


def test_skills_that_cannot_be_done_have_little_to_lose(shop, monkeypatch):
    monkeypatch.setattr(imprints, "_COULD", 2.0)
    (found,) = run_json("plan", shop / "upper.jsonl", "--no-probe", "--workspace", shop / "shop")
    assert found["risks"] == []
    assert found["left_out"]["weak"].endswith("right in context: little to lose")
