"""Consent: over version, report and policy together, by enough people, none of whom asked for what they approve."""

import sqlite3

import pytest

from perdure.errors import RefusedError, SettingError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME
from perdure.workspace.ledger import append
from perdure.workspace.people import machine_name


def grown(archive, tiny, parent, actor, seed):
    """A measured version on another."""
    delta = tiny.low_rank(2, seed=seed)
    version = archive.commit(parent, delta, solved=delta, recipe={"n": seed}, actor=actor)
    archive.put_report(version, {"retention": seed}, actor=actor)
    return version


def approve(archive, version, actor, tiny):
    archive.approve(version, report=archive.report_digest(version), policy=tiny.policy, actor=actor)


def test_what_voids_an_approval_is_said(archive, tiny):
    v1 = archive.version("v1")
    archive.put_report(v1, {"retention": 0.1}, actor="mori")
    (consent,) = archive.consents(v1, policy="another")
    assert not consent.valid
    assert "the report changed (approved over" in consent.void
    assert "and the policy changed (approved under policy-d…, now another…)" in consent.void
    archive.reject(v1, actor="sato", reason="wrong price")
    archive.put_report(v1, {"retention": 0.99}, actor="mori")
    (consent,) = archive.consents(v1, policy=tiny.policy)
    assert consent.void.startswith("sato rejected the version on 20")
    assert [(one.actor, one.reason) for one in archive.rejections(v1)] == [("sato", "wrong price")]
    approve(archive, v1, "kato", tiny)
    assert [one.valid for one in archive.consents(v1, policy=tiny.policy)] == [False, True]
    assert archive.verify().ok


def test_as_many_different_people_as_required(archive, tiny):
    v0, v1 = archive.version("v0"), archive.version("v1")
    standing = archive.standing(v1, policy=tiny.policy, required=2)
    assert (standing.given, standing.missing) == (("kato",), "approved by kato alone; 2 different people must approve")
    approve(archive, v1, "KATO", tiny)
    assert not archive.standing(v1, policy=tiny.policy, required=2).enough
    with pytest.raises(RefusedError, match="so staging2 stays as it is: approved by kato alone"):
        archive.promote(v1, "staging2", actor="mori", policy=tiny.policy, expected=None, required=2)
    approve(archive, v1, "sato", tiny)
    assert archive.standing(v1, policy=tiny.policy, required=2).given == ("kato", "sato")
    archive.promote(v1, "staging2", actor="mori", policy=tiny.policy, expected=None, required=2)
    assert archive.standing(v0, policy=tiny.policy, required=2).enough  # the base was served before any change


def test_who_asked_for_an_unapproved_parent_cannot_approve(archive, tiny):
    """v2 (asked for by mori, approved by nobody) stands under v3 (tanaka) and v4 (hara)."""
    v3 = grown(archive, tiny, archive.version("v2"), "tanaka", 3)
    v4 = grown(archive, tiny, v3, "hara", 4)
    for name, below in (("hara", False), ("tanaka", True), ("Mori", True)):
        with pytest.raises(RefusedError, match="four eyes") as refused:
            approve(archive, v4, name, tiny)
        assert ("stands on and nobody approved" in str(refused.value)) == below
    approve(archive, v4, "kato", tiny)


def test_an_approved_parent_ends_the_line(archive, tiny):
    v3 = grown(archive, tiny, archive.version("v1"), "tanaka", 3)  # v1 was asked for by mori and approved by kato
    approve(archive, v3, "mori", tiny)
    v4 = grown(archive, tiny, v3, "hara", 4)
    approve(archive, v4, "tanaka", tiny)
    # A new report voids the consent to v1, so that mori's change is nobody's again.
    archive.put_report(archive.version("v1"), {"retention": 0.2}, actor="kato")
    v5 = grown(archive, tiny, archive.version("v1"), "hara", 5)
    with pytest.raises(RefusedError, match="mori asked for v1"):
        approve(archive, v5, "mori", tiny)


@pytest.mark.parametrize("name", ["mori", "MORI", " tanaka "])
def test_the_rule_stands_in_the_database(shop, tiny, name):
    with Archive.open(shop) as archive:
        v3 = grown(archive, tiny, archive.version("v2"), "tanaka", 3)
    connection = sqlite3.connect(shop / FILE_NAME)
    with pytest.raises(sqlite3.IntegrityError, match="four eyes"):
        connection.execute("INSERT INTO approvals VALUES (99, ?, 'approved', 'r', 'p', ?, '')", (v3.id, name))
    connection.close()


def test_programs_cannot_approve(shop, archive, tiny):
    v2 = archive.version("v2")
    for name in ("machine:ci", "Machine:CI", "ＭＡＣＨＩＮＥ：ci", machine_name("ci")):
        with pytest.raises(RefusedError, match="is a program and cannot approve"):
            approve(archive, v2, name, tiny)
        with pytest.raises(RefusedError, match="is a program and cannot reject"):
            archive.reject(v2, actor=name, reason="no")
    connection = sqlite3.connect(shop / FILE_NAME)
    with pytest.raises(sqlite3.IntegrityError, match="a program cannot approve"):
        connection.execute("INSERT INTO approvals VALUES (99, ?, 'approved', 'r', 'p', 'Machine:x', '')", (v2.id,))
    connection.close()


def test_production_cannot_be_moved_past_the_rules_by_sql(shop, archive):
    v0, _, v2 = archive.versions()
    database = archive._database
    with database.transaction() as connection:
        details = {"alias": "production", "version": v2.id, "previous": v0.id, "policy": "policy-digest"}
        sequence = append(connection, "promote", {**details, "kind": "promote"}, "mori")
        values = (sequence, "production", v2.id, v0.id, "promote", "policy-digest")
        with pytest.raises(sqlite3.IntegrityError, match="approved versions only"):
            connection.execute("INSERT INTO alias_moves VALUES (?,?,?,?,?,?)", values)
        values = (sequence, "production", v2.id, v0.id, "break glass", "policy-digest")
        with pytest.raises(sqlite3.IntegrityError, match="told in breaks"):
            connection.execute("INSERT INTO alias_moves VALUES (?,?,?,?,?,?)", values)


def test_comments_stay(archive):
    v1, v2 = archive.version("v1"), archive.version("v2")
    archive.comment(v1, "  Is the price that of May?\n", actor="kato")
    archive.comment(v1, "Yes.", actor="mori")
    assert [(one.actor, one.text) for one in archive.comments(v1)] == [
        ("kato", "Is the price that of May?"),
        ("mori", "Yes."),
    ]
    assert archive.comments(v2) == []
    with pytest.raises(SettingError, match="needs words"):
        archive.comment(v1, " \n", actor="kato")
    with pytest.raises(SettingError, match="UTF-8"):
        archive.comment(v1, "\ud800", actor="kato")
    assert archive.verify().ok


def test_who_had_approved_is_told_over_the_report_of_that_time(archive, tiny):
    v1 = archive.version("v1")  # approved by kato
    archive.put_report(v1, {"retention": 0.98}, actor="mori")
    approve(archive, v1, "sato", tiny)
    archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected="any")
    archive.put_report(v1, {"retention": 0.97}, actor="mori")
    assert archive.served("production")[-1].approvers == ("sato",)
