"""perdure concepts: found with an encoder or a version, listed, protected, checked after an update."""

import json

import pytest

import encoder_letters as sample
from encoder_sample import bert, tokenizer
from invoking import run, run_json, run_text
from perdure.errors import RequestError, SettingError, UnknownNameError

QUICK = ["--set", "counts=[2,4,8]", "--set", "draws=2", "--set", "least=10"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A tiny encoder, one that confuses a and b with c and d, and unlabelled texts."""
    folder = tmp_path_factory.mktemp("letters")
    for name, made in (("old", bert()), ("new", sample.deaf(bert()))):
        made.model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    rows = [{"text": text, "count": 9 if label == 3 else 1} for text, label in sample.texts()]
    (folder / "letters.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def found(encoders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_json("concepts", "find", encoders / "letters.jsonl", "--encoder", encoders / "old", *QUICK)


def test_concepts_are_found_outside_a_workspace_and_kept_in_small_files(found, tmp_path):
    assert len(found["concepts"]) == 4
    assert set(found["concepts"][0]["name"]) <= set("gh")
    assert found["concepts"][0]["share"] > 0.6
    files = [path for path in (tmp_path / "concepts").iterdir() if path.is_file()]
    assert sorted(path.suffix for path in files) == [".json", ".json", ".safetensors"]
    assert sum(path.stat().st_size for path in files) < 20_000
    assert run_json("concepts", "list") == found


def test_the_table_says_how_many_how_stable_and_what_is_left(found):
    told = run_text("concepts", "list")
    assert "4 concepts; two halves of the data agree on 4 clusters by" in told
    assert "of the traffic" in told
    assert "9 times" not in told


def test_a_protected_concept_weighs_more_until_it_is_withdrawn(found):
    name = found["concepts"][1]["name"]
    assert run_json("concepts", "protect", name, "--weight", 9)["weights"] == {"c2": 9}
    assert "9 times" in run_text("concepts", "list")
    assert run_json("concepts", "list")["concepts"][1]["weight"] == 9
    assert "c2" in run_text("concepts", "protect", "c2", "--withdraw")
    assert run_json("concepts", "list")["concepts"][1]["weight"] is None
    run("concepts", "protect", "warranty", error=UnknownNameError)


def test_finding_again_is_free_and_other_concepts_do_not_drop_protections_by_chance(found, encoders, monkeypatch):
    run("concepts", "protect", "c1")
    again = ["concepts", "find", encoders / "letters.jsonl", "--encoder", encoders / "old"]
    with monkeypatch.context() as held:
        held.setattr("perdure.measuring.discovery.find_concepts", None)
        assert run_json(*again, *QUICK)["concepts"][0]["weight"] == 3
    assert "--replace" in run_text(*again, *QUICK, "--set", "seed=1", error=SettingError)
    assert run_json(*again, *QUICK, "--set", "seed=1", "--replace")["concepts"][0]["weight"] is None


def test_data_that_moved_is_found_again_where_it_lies_now(found, encoders, tmp_path):
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((encoders / "letters.jsonl").read_bytes())
    again = run_json("concepts", "find", moved, "--encoder", encoders / "old", *QUICK)
    assert (again["path"], again["source"]) == (str(moved), "moved")
    assert run_json("concepts", "list") == again
    assert again == found | {"path": str(moved), "source": "moved"}


def test_an_update_that_loses_a_concept_is_seen(found, encoders):
    lost = next(each for each in found["concepts"] if set(each["name"]) <= set("ab"))
    run("concepts", "protect", lost["id"])
    measures = run_json("concepts", "check", encoders / "new")
    by_id = {each["concept"]["id"]: each for each in measures["concepts"]}
    assert by_id[lost["id"]]["linear"]["difference"]["high"] < 0
    assert by_id[lost["id"]]["protected"]
    told = run_text("concepts", "check", encoders / "new")
    assert "* " in told.split("Over the traffic")[0]
    assert "Clearly worse: " in told
    same = run_json("concepts", "check", encoders / "old")
    assert same["traffic"]["value"] == 0


def test_what_is_missing_is_said(encoders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "perdure concepts find" in run_text("concepts", "list", error=SettingError)
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    run("concepts", "find", few, "--encoder", encoders / "old", error=RequestError)
    run(
        "concepts",
        "find",
        encoders / "letters.jsonl",
        "--encoder",
        encoders / "old",
        "--set",
        "many=3",
        error=SettingError,
    )


def test_every_report_of_a_workspace_watches_its_concepts(encoders, tiny_shop, monkeypatch):
    """Of a decoder: the features of what it reads. Who protects what stands in the ledger."""
    monkeypatch.chdir(tiny_shop.folder)
    found = run_json("concepts", "find", encoders / "letters.jsonl", *QUICK, "--set", "counts=[4]", "--as", "sato")
    assert len(found["concepts"]) >= 2
    run("concepts", "protect", "c1", "--as", "mori")
    entries = run_json("log")
    assert [(entry["action"], entry["actor"]) for entry in entries if "concepts" in entry["action"]] == [
        ("watch concepts", "sato"), ("watch concepts", "mori"),
    ]  # fmt: skip
    report = tiny_shop.measure("v0")
    measures = report.watched
    assert measures.traffic.value == 0
    assert [gate.verdict for gate in report.verdicts if gate.gate.startswith("protected concept")] == ["pass"]
    assert [each.concept.id for each in measures.protected] == ["c1"]
    assert measures.concepts[0].linear.before.value > 0.8
    with monkeypatch.context() as held:
        held.setattr("perdure.measuring.watching.cross_validated", None)  # every version is probed once
        assert tiny_shop.measure("v0").watched == measures
    (encoders / "letters.jsonl").rename(encoders / "moved.jsonl")
    try:
        with pytest.raises(RequestError, match="Put it back"):
            tiny_shop.measure("v0")
    finally:
        (encoders / "moved.jsonl").rename(encoders / "letters.jsonl")
