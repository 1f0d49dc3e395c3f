"""The policy in force: kept by its hash, changed in the ledger, and voiding what was approved under another."""

from datetime import timedelta

import pytest

from perdure import Workspace
from perdure.errors import RefusedError, SettingError, UnknownNameError
from perdure.governance import parse_policy
from perdure.workspace.failpoints import Point
from shops import FACTS, LAX, QUICK

STRICT = LAX.replace("learnt=0", "learnt=1")
TWO = f"{LAX}\n[approval.required]\nproduction = 2\nstaging = 1\n"


@pytest.fixture
def measured(tiny_shop):
    """v1, asked for by kato and measured, under a policy that it passes; nobody has a role."""
    tiny_shop.set_policy(LAX, actor="sato")
    tiny_shop.edit(FACTS, config=QUICK, actor="kato")
    tiny_shop.measure("v1", actor="kato")
    return tiny_shop


def digests(shop):
    return [(change.digest, change.origin, change.actor) for change in shop.policy_changes()]


def test_every_policy_that_was_in_force_is_kept(tiny_shop):
    first = tiny_shop.policy.digest
    lax, strict = parse_policy(LAX).digest, parse_policy(STRICT).digest
    assert digests(tiny_shop) == [(first, "found", "sato")]
    tiny_shop.set_policy(LAX, actor="mori")
    tiny_shop.set_policy(f"# a comment alone\n{LAX}", actor="mori")
    (tiny_shop.folder / "policy.toml").write_text(STRICT)
    assert tiny_shop.policy.digest == strict  # while there are no members, the file is in force
    tiny_shop.settle_policy("kato")
    tiny_shop.set_policy(LAX, actor="mori")
    assert digests(tiny_shop)[1:] == [(lax, "set", "mori"), (strict, "found", "kato"), (lax, "set", "mori")]
    assert tiny_shop.policy_text(strict[:8]) == STRICT
    assert tiny_shop.policy_text() == LAX
    with pytest.raises(UnknownNameError, match="policy 'ffff'"):
        tiny_shop.policy_text("ffff")
    assert tiny_shop.archive.verify().ok


def test_a_wrong_policy_changes_nothing(tiny_shop):
    before = (tiny_shop.folder / "policy.toml").read_text()
    with pytest.raises(SettingError, match="no TOML"):
        tiny_shop.set_policy("[edits", actor="mori")
    assert (tiny_shop.folder / "policy.toml").read_text() == before and len(digests(tiny_shop)) == 1


def test_once_there_are_members_a_file_changed_by_hand_counts_for_nothing(measured):
    measured.grant("sato", "admin", by="sato")
    measured.grant("mori", "approver", by="sato")
    (measured.folder / "policy.toml").write_text(STRICT)
    assert measured.policy.digest == parse_policy(LAX).digest and measured.policy_file_differs()
    (measured.folder / "policy.toml").unlink()
    assert measured.policy.digest == parse_policy(LAX).digest and measured.policy_file_differs()
    with pytest.raises(RefusedError, match="mori has the roles approver and cannot set the policy"):
        measured.set_policy(STRICT, actor="mori")
    assert not (measured.folder / "policy.toml").exists()
    measured.set_policy(STRICT, actor="sato")
    assert measured.policy.digest == parse_policy(STRICT).digest and not measured.policy_file_differs()


def test_a_change_of_policy_voids_and_its_return_heals(measured):
    measured.approve("v1", "mori")
    assert measured.standing("v1").enough
    other = LAX.replace("overall_lost=1", "overall_lost=0.9")
    measured.set_policy(other, actor="sato")
    standing = measured.standing("v1")
    assert standing.given == () and "mori's is void: the policy changed" in standing.missing
    with pytest.raises(RefusedError, match="the policy changed"):
        measured.promote("v1", "production")
    measured.set_policy(LAX, actor="sato")
    measured.promote("v1", "production", actor="sato")
    (base, served) = measured.history("production")
    assert (base.until, served.until, served.approvers) == (served.since, None, ("mori",))


def test_as_many_as_the_policy_says_for_each_alias(measured):
    measured.set_policy(TWO, actor="sato")
    with pytest.raises(RefusedError, match="so staging stays as it is: no valid approval; somebody must approve"):
        measured.promote("v1", "staging")
    assert measured.approve("v1", "mori").missing == "approved by mori alone; 2 different people must approve"
    measured.promote("v1", "staging")
    with pytest.raises(RefusedError, match="production stays as it is: approved by mori alone"):
        measured.promote("v1", "production")
    assert measured.approve("v1", "hara").enough
    measured.promote("v1", "production")


def test_consent_names_what_was_seen(measured):
    report, policy = measured.archive.report_digest(measured.version("v1")), measured.policy.digest
    with pytest.raises(RefusedError, match="the report of v1 changed since it was seen"):
        measured.approve("v1", "mori", report="0" * 64, policy=policy)
    with pytest.raises(RefusedError, match="the policy changed since it was seen"):
        measured.approve("v1", "mori", report=report, policy="0" * 64)
    measured.approve("v1", "mori", "fine", report=report, policy=policy)
    (consent,) = measured.approvals("v1")
    assert (consent.approval.comment, consent.valid) == ("fine", True)


def test_a_broken_glass_is_shown_and_ends(measured, monkeypatch):
    measured.break_glass("v1", "production", "kato", "wrong prices", timedelta(hours=1))
    assert [one.actor for one in measured.emergencies(unreviewed=True)] == ["kato"]
    measured.review(measured.emergencies()[0], "mori", "seen")
    assert measured.emergencies(unreviewed=True) == [] and len(measured.emergencies()) == 1
    assert measured.end_expired() == []
    assert measured.archive.aliases()["production"].name == "v1"


def test_a_canary_through_the_workspace(measured):
    measured.approve("v1", "mori")
    started = measured.start_canary("v1", "production", actor="sato")
    assert measured.canary("production") == started and started.weight == 0.05
    measured.step_canary("production", 0.5, actor="sato")
    measured.end_canary("production", "promote", actor="sato")
    assert measured.canary("production") is None
    assert measured.archive.aliases()["production"].name == "v1"


def test_a_kill_between_the_file_and_the_ledger_leaves_one_policy_in_force(tiny_shop, in_child):
    folder = tiny_shop.folder

    def set_policy():
        Workspace.open(folder).set_policy(LAX, actor="mori")

    assert in_child(set_policy, failpoint=Point.POLICY_FILE_WRITTEN) == -9
    shop = Workspace.open(folder)
    assert shop.policy.digest == parse_policy(LAX).digest
    shop.settle_policy("kato")
    assert digests(shop)[-1] == (shop.policy.digest, "found", "kato")
    assert shop.archive.verify().ok


def test_facts_are_found_with_what_the_report_says(measured):
    (found,) = measured.search("lyon manila")
    assert (found.version, found.requester) == ("v1", "kato") and found.holds is not None
    lineage = measured.lineage_of(found.id)
    assert lineage.lives_in == ("v1",) and [one.version for one in lineage.answers] == ["v1"]
    report = measured.report("v1")
    assert (report.spent.versions, report.spent.facts, report.spent.tasks) == (1, 3, 0)


def test_what_is_approved_is_what_was_judged(measured, monkeypatch):
    settle = measured.settle_policy

    def stricter_meanwhile(actor):
        (measured.folder / "policy.toml").write_text(STRICT)
        return settle(actor)

    monkeypatch.setattr(measured, "settle_policy", stricter_meanwhile)
    with pytest.raises(RefusedError, match="v1 fails its gates"):
        measured.approve("v1", "mori")
    assert measured.approvals("v1") == []
