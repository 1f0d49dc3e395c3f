import pytest

from invoking import run, run_json
from perdure.errors import RequestError, SettingError
from shops import FACTS, LAX, MORE, QUICK_OPTIONS, write_facts


@pytest.fixture
def place(tmp_path, tiny_folder, quick_suite, monkeypatch):
    run("init", tmp_path / "shop", "--model", tiny_folder, "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    monkeypatch.chdir(tmp_path / "shop")
    return write_facts(tmp_path / "facts.jsonl")


def test_a_fact_is_taken_out_measured_and_told(place, tmp_path):
    run("edit", place, *QUICK_OPTIONS, "--no-measure", "--as", "kato")
    facts = {fact["prompt"]: fact["id"] for fact in run_json("show", "v1")["facts"]}
    made = run_json("edit", "--remove", facts["Ada speaks"][:8], "--as", "kato")
    report = made["report"]
    assert made["version"] == "v2"
    assert (report["parent"], report["base"]) == ("v1", "v0")
    assert report["edits"]["facts"] == 2
    removal = report["removal"]
    assert (removal["facts"], removal["original"]) == (1, "v0")
    assert [case["taught"] for case in removal["cases"]] == ["Dutch"]
    assert removal["unchanged"]["after"]["n"] == 3  # two prompts and a paraphrase
    assert "facts taken out" in [verdict["gate"] for verdict in report["verdicts"]]
    shown = run_json("show", "v2")
    assert shown["parent"] == "v0"
    assert [fact["prompt"] for fact in shown["facts"]] == ["The twin city of Lyon is", "The colour of Orlan is"]
    assert "v1 without 1, memit + prune" in [row["made with"] for row in run_json("versions")]
    output = run("measure", "v2").output
    assert "What was taken out" in output
    run("report", "v2", "--out", tmp_path / "v2.html")
    assert "1 fact taken out" in (tmp_path / "v2.html").read_text()
    run("approve", "v2", "--as", "mori")
    run("promote", "v2", "production")
    assert run_json("rollback", "production")["version"] == "v0"
    assert run_json("verify")["ok"] is True


def test_dry_run_says_what_is_done_again(place, tmp_path, monkeypatch):
    run("edit", place, *QUICK_OPTIONS, "--no-measure")
    more = write_facts(tmp_path / "more.jsonl", MORE)
    run("edit", more, "--editor", "fine_tuning", "--set", "steps=1", "--no-measure")
    monkeypatch.setattr(
        "perdure.workspace.workspace.Workspace.load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    output = run("edit", "--remove", "Lyon", "--dry-run").output
    assert "nothing was computed" in output
    assert "v1 (memit): the other 2 facts are solved again from the target values that were kept" in output
    assert "v2 (fine_tuning): the other 1 fact are taught again" in output or "taught again" in output
    plan = run_json("edit", "--remove", "Lyon", "--remove", "Ada", "--dry-run")
    assert plan["from"] == "v2"
    assert len(plan["removed"]) == 2
    assert plan["values_known"] == [1, 0]
    assert [step["editor"] for step in plan["recipe"]["steps"]] == ["memit", "fine_tuning"]
    assert len(run_json("versions")) == 3


def test_wrong_requests_are_refused(place):
    run("edit", error=SettingError)
    run("edit", place, *QUICK_OPTIONS, "--no-measure")
    result = run("edit", "--remove", "The twin city of Leon is", error=RequestError)
    assert "Near ones" in str(result.exception)
    assert result.exception.exit_code == 3
    result = run("edit", place, "--remove", "Lyon", "--editor", "rome", error=SettingError)
    assert "FACTS, --editor" in str(result.exception)
    assert len(run_json("versions")) == 2


def test_facts_that_look_alike_are_named_by_id(place):
    twin = {**FACTS[1], "prompt": "Ada lives in", "target_new": "Rome", "target_true": None}
    run("edit", write_facts(place.parent / "twins.jsonl", [FACTS[1], twin]), *QUICK_OPTIONS, "--no-measure")
    result = run("edit", "--remove", "Ada", error=RequestError)
    assert "means 2 facts" in str(result.exception)
    made = run_json("edit", "--remove", "Ada lives in", "--no-measure")
    assert [fact["prompt"] for fact in run_json("show", made["version"])["facts"]] == ["Ada speaks"]
