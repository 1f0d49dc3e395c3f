"""Policy, gates, roles, emergencies, canaries and lineages on the command line."""

import pytest
from typer.testing import CliRunner

from invoking import run, run_json, run_text
from perdure.cli.app import app
from perdure.errors import RefusedError, SettingError, WorkspaceError
from shops import FACTS, LAX, QUICK


@pytest.fixture
def shop(tiny_shop, monkeypatch):
    """v1, asked for by kato and measured, under a policy that it passes."""
    monkeypatch.chdir(tiny_shop.folder)
    monkeypatch.setenv("PERDURE_USER", "sato")
    tiny_shop.set_policy(LAX, actor="sato")
    tiny_shop.edit(FACTS, config=QUICK, actor="kato")
    tiny_shop.measure("v1", actor="kato")
    return tiny_shop


def gate(*words):
    return CliRunner().invoke(app, ["gate", *words])


def test_gates_end_with_their_verdict(shop):
    passed = gate("v1")
    assert (passed.exit_code, "Gates of v1: pass" in passed.stdout) == (0, True)
    shop.set_policy(LAX.replace("learnt=0", "learnt=1"), actor="sato")
    failed = gate("v1")
    assert failed.exit_code == 1 and "FAIL facts learnt" in failed.stdout
    shop.set_policy(f"{LAX}\n[skills]\nrequired = true\n", actor="sato")
    unclear = gate("v1", "--json")
    assert unclear.exit_code == 2 and '"verdict": "inconclusive"' in unclear.stdout
    assert isinstance(gate("v0").exception, WorkspaceError)


def test_policies_are_checked_shown_set_and_listed(shop, tmp_path):
    assert "Before a version stands behind production, one other person must approve." in run_text("policy", "check")
    file = tmp_path / "two.toml"
    file.write_text(f"{LAX}\n[approval.required]\nproduction = 2\n")
    assert "2 different other people must approve" in run_text("policy", "check", file)
    assert "put in force" not in run_text("policy", "set", file, "--as", "mori")
    found = run_json("policy", "history")
    assert [(change["origin"], change["actor"]) for change in found] == [
        ("found", "sato"), ("set", "sato"), ("set", "mori"),
    ]  # fmt: skip
    assert "production = 2" in run_text("policy", "show")
    assert "[budget]" in run_text("policy", "show", found[0]["digest"][:10])
    assert run_json("policy", "check")["limits"]["approval"]["required"] == {"production": 2}
    file.write_text("[edits]\n")
    run("policy", "set", file, error=SettingError)
    run("policy", "check", tmp_path / "missing.toml", error=SettingError)


def test_members(shop):
    assert "one local user" in run_text("members", "list")
    run("members", "grant", "kato", "requester", error=RefusedError)
    run("members", "grant", "sato", "admin")
    assert "kato is now approver" in run_text("members", "grant", "kato", "approver")
    assert run_json("members", "withdraw", "kato", "approver") == {"name": "kato", "roles": []}
    assert run_json("members", "list") == {"kato": [], "sato": ["admin"]}
    message = run_text("approve", "v1", "--as", "mori", error=RefusedError)
    assert message == "mori has no role and cannot approve: that takes an approver. sato can grant it"


def test_a_local_user_is_told_that_names_are_taken_as_given(shop):
    assert "Nobody was granted a role here" in run("approve", "v1", "--as", "mori").stderr
    run("members", "grant", "sato", "admin")
    run("members", "grant", "sato", "operator")
    assert "Nobody was granted" not in run("promote", "v1", "production").stderr


def test_a_broken_glass_is_told_by_every_command_until_it_is_reviewed(shop):
    broken = run_json("break-glass", "v1", "production", "--as", "kato", "--reason", "wrong prices", "--hours", "2")
    assert (broken["version"], broken["alias"]) == ("v1", "production")
    for words in (["versions"], ["log"], ["history"], ["members", "list"], ["verify", "--quick"]):
        assert "kato let production hold v1 without consent" in run(*words).stderr
    number = broken["emergency"]
    run("review", number, "--as", "kato", "--comment", "mine", error=RefusedError)
    run("review", "--as", "mori", "--comment", "right so")
    run("review", "--as", "mori", "--comment", "again", error=WorkspaceError)
    assert "GLASS" not in run("versions").stderr
    run("break-glass", "v1", "staging", "--as", "kato", "--reason", "x", "--hours", "200", error=SettingError)


def test_comments_and_history(shop):
    run("comment", "v1", "prices of May?", "--as", "mori")
    assert [one["text"] for one in run_json("comment", "v1")] == ["prices of May?"]
    run("approve", "v1", "--as", "mori")
    run("promote", "v1", "production")
    run("rollback", "production")
    served = run_json("history", "production")["served"]
    assert [(time["version"], time["kind"], time["approvers"]) for time in served] == [
        ("v0", "promote", []), ("v1", "promote", ["mori"]), ("v0", "rollback", []),
    ]  # fmt: skip
    assert "No version was ever promoted to staging" in run_text("history", "staging")


def test_canaries(shop):
    run("approve", "v1", "--as", "mori")
    started = run_json("canary", "start", "v1", "production", "--set", "weights=0.1,0.4", "--set", "hold_requests=5")
    assert (started["weight"], started["stable"], started["candidate"]) == (0.1, "v0", "v1")
    assert "v1 answers 40% of production, v0 the rest" in run_text("canary", "step", "production", "0.4")
    assert "ended (fall back): production is v0" in run_text("canary", "end", "production", "fall-back")
    assert [step["event"] for step in run_json("history")["canaries"][0]["steps"]] == ["start", "step", "fall back"]
    for wrong in ("weights=2", "speed=1", "weights"):
        run("canary", "start", "v1", "production", "--set", wrong, error=SettingError)
    run("canary", "start", "v1", "production")
    assert "promote" in run_text("canary", "end", "production", "promote")
    assert shop.archive.aliases()["production"].name == "v1"


def test_facts_are_found_and_told(shop):
    (found,) = run_json("find", "Lyon")
    assert (found["version"], found["requester"], found["shown"]["target_new"]) == ("v1", "kato", "Manila")
    assert found["id"][:12] in run_text("find", "lyon")
    told = run_json("fact", found["id"][:8])
    assert told["lives_in"] == ["v1"] and told["holds"] == found["holds"] and told["conflicts"] == []
    assert "asked for" in run("fact", found["id"]).stdout
    assert run_json("find", "nothing of the kind") == []


@pytest.mark.parametrize("hours", ["nan", "inf", "1e300", "-1", "0", "169"])
def test_a_broken_glass_ends_within_a_week(shop, hours):
    said = run_text(
        "break-glass", "v1", "staging", "--as", "mori", "--reason", "x", "--hours", hours, error=SettingError
    )
    assert "--hours lies above 0 and is at most 168" in said


def test_the_base_cannot_be_rejected(shop):
    assert "v0 is the base" in run_text("reject", "v0", "--as", "mori", "--reason", "x", error=RefusedError)
    run("reject", "v1", "--as", "mori", "--reason", "x")
    assert shop.newest().name == "v0"
