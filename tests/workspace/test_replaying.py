"""Verification replays every decision: rows that a program wrote past the rules, with a true ledger, are found."""

import pytest
from test_damage import edit

from perdure.workspace.archive import Archive
from perdure.workspace.ledger import append_row

DAY = "2031-01-01T00:00:00.000000+00:00"


def forge(shop, table, action, actor, **values):
    """Write a row beside a true ledger row, with no rule in its way; what verification then says of decisions."""
    edit(shop)  # drops every trigger
    with Archive.open(shop) as archive:
        with archive._database.transaction() as connection:
            append_row(connection, table, values, action=action, actor=actor)
        return [problem for problem in archive.verify().problems if "its rule no longer holds" not in problem]


@pytest.fixture
def ids(template):
    return template.ids


def report_of(shop, name):
    with Archive.open(shop) as archive:
        return archive.report_digest(archive.version(name))


APPROVAL = {"decision": "approved", "policy": "policy-digest", "comment": ""}


def test_nothing_is_wrong_with_what_was_done_by_the_rules(full_shop):
    with Archive.open(full_shop) as archive:
        assert archive.verify().problems == ()


@pytest.mark.parametrize("actor", ["mori", "MORI"])
def test_approvals_by_who_asked(shop, ids, actor):
    report = report_of(shop, "v2")
    found = forge(shop, "approvals", "approve", actor, version=ids["v2"], report=report, approver=actor, **APPROVAL)
    assert len(found) == 1 and found[0].endswith(f"v2 was approved by {actor}, who asked for it")


def test_approvals_in_another_name_or_over_another_report_or_by_a_program(shop, ids):
    report = report_of(shop, "v2")
    found = forge(shop, "approvals", "approve", "hara", version=ids["v2"], report=report, approver="kato", **APPROVAL)
    assert found[0].endswith("a decision on v2 by hara was written for kato")
    found = forge(shop, "approvals", "approve", "kato", version=ids["v2"], report="old", approver="kato", **APPROVAL)
    assert any("over a report that was not its latest" in problem for problem in found)
    name = "machine:ci"
    found = forge(shop, "approvals", "approve", name, version=ids["v2"], report=report, approver=name, **APPROVAL)
    assert any("was approved by the program machine:ci" in problem for problem in found)


def test_decisions_without_the_role(full_shop, ids):
    report = report_of(full_shop, "v2")
    found = forge(full_shop, "approvals", "approve", "hara", version=ids["v2"], report=report, approver="hara",
                  **APPROVAL)  # fmt: skip
    assert found[0].endswith("hara decided on v2 without being an approver")
    found = forge(full_shop, "grants", "grant", "hara", member="hara", role="admin", change="grant")
    assert any("hara changed the roles of hara without being an admin" in problem for problem in found)
    found = forge(full_shop, "policies", "policy", "kato", digest="x", text="x", origin="set")
    assert any("kato set the policy without being an admin" in problem for problem in found)
    found = forge(full_shop, "breaks", "emergency", "kato", version=ids["v2"], alias="x", reason="x", expires=DAY)
    assert any("kato broke the glass and may not" in problem for problem in found)


def test_the_first_member(shop):
    found = forge(shop, "grants", "grant", "mori", member="mori", role="operator", change="grant")
    assert found[0].endswith("the first member, mori, was no admin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "promote"}, "v2 was promoted to production without consent"),
        ({"kind": "break glass"}, "by a broken glass that nobody told of"),
        ({"kind": "rollback", "previous": None}, "from a version that it did not hold"),
    ],
)
def test_moves(shop, ids, change, words):
    values = {"alias": "production", "version": ids["v2"], "previous": ids["v0"], "policy": "policy-digest", **change}
    found = forge(shop, "alias_moves", values["kind"], "mori", **values)
    assert any(words in problem for problem in found)


def test_reviews_and_canaries(full_shop, ids):
    with Archive.open(full_shop) as archive:
        broken = archive.emergencies()[0].sequence
    found = forge(full_shop, "reviews", "review", "mori", broken=broken, comment="fine")
    assert any("mori reviewed a broken glass of their own" in problem for problem in found)
    values = {"canary": 1, "alias": "production", "stable": ids["v0"], "candidate": ids["v1"], "plan": "{}"}
    found = forge(full_shop, "canaries", "canary", "mori", event="step", weight=0.5, reason="", **values)
    assert any("canary 1 of production has a step out of turn" in problem for problem in found)


NEW_DAMAGES = {
    "policy text": "UPDATE policies SET text = 'weaker'",
    "policy lost": "DELETE FROM policies",
    "role": "UPDATE grants SET role = 'admin' WHERE member = 'mori'",
    "member": "UPDATE grants SET member = 'hara' WHERE member = 'kato'",
    "withdrawal": "DELETE FROM grants WHERE sequence = (SELECT MAX(sequence) FROM grants)",
    "comment": "UPDATE comments SET text = 'Fine.'",
    "comment lost": "DELETE FROM comments",
    "comment moved": "UPDATE comments SET version = (SELECT id FROM versions WHERE number = 0)",
    "emergency": "UPDATE breaks SET expires = '2099-01-01'",
    "emergency lost": "DELETE FROM reviews; DELETE FROM breaks",
    "review lost": "DELETE FROM reviews",
    "canary share": "UPDATE canaries SET weight = 0.9 WHERE event = 'step'",
    "canary lost": "DELETE FROM canaries WHERE event = 'fall back'",
}


@pytest.mark.parametrize("statements", NEW_DAMAGES.values(), ids=NEW_DAMAGES.keys())
def test_changed_rows_are_found(full_shop, statements):
    edit(full_shop, *statements.split("; "))
    with Archive.open(full_shop) as archive:
        problems = archive.verify().problems
    assert [problem for problem in problems if "its rule no longer holds" not in problem]


def test_a_policy_found_in_a_file_once_there_are_members(full_shop):
    values = {"digest": "lax", "text": "[edits] # lax", "origin": "found"}
    (found,) = forge(full_shop, "policies", "policy", "mori", **values)
    assert found.endswith("mori set the policy without being an admin")
