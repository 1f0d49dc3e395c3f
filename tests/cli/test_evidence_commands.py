"""perdure export --evidence and perdure verify --evidence, as a user calls them."""

import json

import pytest

from invoking import run, run_json, run_text
from perdure.errors import IntegrityError, SettingError, WorkspaceError
from shops import LAX, QUICK_OPTIONS, write_facts


@pytest.fixture
def place(tmp_path, tiny_folder, quick_suite, monkeypatch):
    run("init", tmp_path / "shop", "--model", tiny_folder, "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    monkeypatch.chdir(tmp_path / "shop")
    run("edit", write_facts(tmp_path / "facts.jsonl"), *QUICK_OPTIONS, "--as", "kato")
    run("approve", "v1", "--as", "mori")
    return tmp_path


def test_from_export_to_a_check_elsewhere(place, monkeypatch):
    told = run_json("export", "--evidence", "v1", "--out", place / "v1.zip")
    assert told["about"]["approved_by"] == ["mori"] and told["paths"] == []
    here = run_json("verify", "--evidence", place / "v1.zip")
    assert here["ok"] and here["signer_known"] and here["about"]["name"] == "v1"
    key, head = run_json("vectors", "key")["fingerprint"], run_json("log")[-1]["hash"]
    monkeypatch.chdir(place)
    text = run_text("verify", "--evidence", "v1.zip")
    assert "sound: v1" in text and "approved by mori" in text and "was not checked" in text
    assert "which is known" in run_text("verify", "--evidence", "v1.zip", "--key", key, "--head", head)
    assert run_json("verify", "--evidence", "v1.zip", "-w", "shop")["signer_known"]
    run("verify", "--evidence", "v1.zip", "--key", "0" * 64, error=IntegrityError)
    run("verify", "--evidence", "v1.zip", "--head", "0" * 64, error=IntegrityError)
    run("verify", "--evidence", "v1.zip", "-w", "nowhere", error=WorkspaceError)


def test_what_is_wrong_is_told_and_has_its_exit_code(place):
    run("export", "--evidence", "v1", "-o", place / "pack")
    (place / "pack" / "report.html").write_text("<p>all is well</p>")
    result = run("verify", "--evidence", place / "pack", error=IntegrityError)
    assert result.exception.exit_code == 7
    assert "files: report.html was changed" in result.stdout and "NOT SOUND" in result.stdout
    result = run("verify", "--evidence", place / "pack", "--json", error=IntegrityError)
    assert json.loads(result.stdout)["ok"] is False


def test_the_usual_target_and_what_does_not_go_together(place):
    assert "v1.evidence.zip" in run_text("export", "--evidence", "v1")
    assert "exists" in run_text("export", "--evidence", "v1", error=SettingError)
    assert "different things" in run_text("export", "v1", "x", "--evidence", "--delta", error=SettingError)
    assert "name the new folder" in run_text("export", "v1", error=SettingError)
    assert "goes with --evidence" in run_text("verify", "--key", "0" * 64, error=SettingError)
    assert "run perdure measure v0" in run_text("export", "--evidence", "v0", error=WorkspaceError)


def test_a_head_noted_elsewhere_must_be_in_the_ledger(place):
    head = run_json("verify")["head"]
    run("promote", "v1", "staging")
    assert run_json("verify", "--quick", "--head", head)["ok"]
    run("verify", "--quick", "--head", "0" * 64, error=IntegrityError)
