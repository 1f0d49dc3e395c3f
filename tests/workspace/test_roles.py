"""Roles: granted by admins, needed for everything once there are members, enforced below the API as well."""

import sqlite3
from datetime import timedelta

import pytest

from perdure.errors import RefusedError, SettingError
from perdure.workspace.ledger import append
from perdure.workspace.schema import ROLES


@pytest.fixture
def governed(full_shop, archive):
    """mori: requester and operator; kato: approver; sato: admin."""
    return archive


def test_the_first_member_is_an_admin(archive):
    assert archive.members() == {}
    with pytest.raises(RefusedError, match="first member must be an admin: grant mori admin, then operator"):
        archive.grant("mori", "operator", actor="mori")
    archive.grant("Sato", "admin", actor="mori")
    assert archive.members() == {"Sato": frozenset({"admin"})}
    assert archive.roles("ＳＡＴＯ") == {"admin"}
    with pytest.raises(RefusedError, match=r"mori has no role and cannot grant roles: that takes an admin. Sato can"):
        archive.grant("mori", "admin", actor="mori")
    archive.grant("mori", "admin", actor="sato")
    archive.withdraw("SATO", "admin", actor="mori")
    assert archive.members() == {"Sato": frozenset(), "mori": frozenset({"admin"})}
    assert archive.verify().ok


def test_the_last_admin_stays(archive):
    archive.grant("sato", "admin", actor="sato")
    with pytest.raises(RefusedError, match="sato is the last admin"):
        archive.withdraw("sato", "admin", actor="sato")
    assert archive.roles("sato") == {"admin"}


def test_a_grant_twice_is_one(archive):
    archive.grant("sato", "admin", actor="sato")
    rows = len(archive.log())
    archive.grant("SATO", "admin", actor="sato")
    archive.withdraw("kato", "approver", actor="sato")
    assert len(archive.log()) == rows


def test_unknown_roles_are_named(archive):
    with pytest.raises(SettingError, match=r"no role 'boss'; known: requester, approver, operator, auditor, admin"):
        archive.grant("sato", "boss", actor="sato")


@pytest.mark.parametrize("role", ["approver", "admin"])
def test_programs_do_not_decide(governed, role):
    with pytest.raises(RefusedError, match="is a program"):
        governed.grant("machine:ci", role, actor="sato")
    governed.grant("machine:ci", "requester", actor="sato")
    with pytest.raises(RefusedError, match="machine:ci is a program"):
        governed.grant("kato", "operator", actor="machine:ci")


# What each action takes; who is refused it is everybody else.
ACTIONS = {
    "commit": ({"requester"}, lambda a, t, who: a.commit(
        a.version("v2"), t.low_rank(2, seed=9), solved=t.low_rank(2), recipe={"by": who}, actor=who)),
    "report": ({"requester", "approver", "operator"}, lambda a, t, who: a.put_report(
        a.version("v2"), {"by": who}, actor=who)),
    "approve": ({"approver"}, lambda a, t, who: a.approve(
        a.version("v2"), report=a.report_digest(a.version("v2")), policy=t.policy, actor=who)),
    "reject": ({"approver"}, lambda a, t, who: a.reject(a.version("v2"), actor=who, reason="no")),
    "comment": (set(ROLES), lambda a, t, who: a.comment(a.version("v2"), "x", actor=who)),
    "promote": ({"operator"}, lambda a, t, who: a.promote(
        a.version("v2"), "staging", actor=who, policy=t.policy, expected="any")),
    "rollback": ({"operator"}, lambda a, t, who: a.rollback("staging", actor=who)),
    "policy": ({"admin"}, lambda a, t, who: a.put_policy("x", who, actor=who)),
    "grant": ({"admin"}, lambda a, t, who: a.grant("nobody", "auditor", actor=who)),
    "withdraw": ({"admin"}, lambda a, t, who: a.withdraw("kato", "approver", actor=who)),
}  # fmt: skip


@pytest.mark.parametrize("role", [*ROLES, None])
@pytest.mark.parametrize("action", ACTIONS)
def test_every_role_and_every_action(governed, tiny, action, role):
    allowed, act = ACTIONS[action]
    governed.grant("hara", "auditor", actor="sato")
    governed.withdraw("hara", "auditor", actor="sato")
    if role:
        governed.grant("hara", role, actor="sato")
    rows = len(governed.log())
    if role in allowed:
        act(governed, tiny, "hara")
        assert governed.log(1)[0].actor == "hara"
    else:
        with pytest.raises(RefusedError, match=r"hara has .* and cannot"):
            act(governed, tiny, "hara")
        assert len(governed.log()) == rows
    assert governed.verify().ok


def test_garbage_is_collected_whoever_there_is(governed):
    assert governed.collect_garbage().quarantined == ()


def test_the_rules_stand_in_the_database(governed):
    """Each forged row stands beside a true ledger row, as a program with its own SQL could write it."""
    v2 = governed.version("v2").id
    report = governed.report_digest(governed.version("v2"))
    forged = [
        ("grant", "mori", "grants", {"member": "mori", "role": "approver", "change": "grant"}, "only an admin"),
        ("withdraw", "sato", "grants", {"member": "SATO", "role": "admin", "change": "withdraw"}, "last admin"),
        ("grant", "sato", "grants", {"member": "machine:x", "role": "admin", "change": "grant"}, "CHECK"),
        ("grant", "sato", "grants", {"member": "x", "role": "boss", "change": "grant"}, "CHECK"),
        ("approve", "hara", "approvals", {"version": v2, "decision": "approved", "report": report, "policy": "p",
                                          "approver": "hara", "comment": ""}, "only an approver"),
        ("review", "mori", "reviews", {"broken": 0, "comment": "me"}, "four eyes"),
    ]  # fmt: skip
    options = {"actor": "mori", "reason": "outage", "expires": timedelta(days=1), "policy": "p"}
    broken = governed.break_glass(governed.version("v2"), "production", **options).sequence
    for action, actor, table, values, words in forged:
        row = {name: broken if name == "broken" else value for name, value in values.items()}
        with pytest.raises(sqlite3.IntegrityError, match=words), governed._database.transaction() as connection:
            sequence = append(connection, action, row, actor)
            marks = ",".join("?" * (len(row) + 1))
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", (sequence, *row.values()))
    assert governed.verify().ok


def test_nothing_is_found_in_a_file_once_there_are_members(governed):
    with pytest.raises(RefusedError, match="mori has the roles operator, requester and cannot set the policy"):
        governed.put_policy("[edits] # lax", "a lax one", actor="mori", origin="found")
    assert governed.policy_in_force().digest == "another policy"
    governed.put_policy("[edits]", "the same text, hashed anew", actor="mori", origin="found")
    assert governed.verify().ok
