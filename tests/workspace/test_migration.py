"""Workspaces of the first schema open, keep every row, and get the new tables and rules in one step."""

import os
import sqlite3

import pytest
from schema_one import downgrade

from perdure.errors import IntegrityError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME
from perdure.workspace.failpoints import Point

PASSED = {13, 14, 17, 18, 25}


@pytest.fixture
def old(shop):
    downgrade(shop / FILE_NAME)
    return shop


def rows(file):
    connection = sqlite3.connect(file)
    tables = ("ledger", "versions", "reports", "approvals", "alias_moves", "objects", "packs", "packed")
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found, schema


def test_an_old_workspace_opens_with_every_row(old, tiny):
    before, schema = rows(old / FILE_NAME)
    assert schema == 1
    with Archive.open(old) as archive:
        assert [version.status for version in archive.versions()] == ["base", "approved", "candidate"]
        assert archive.approval(archive.version("v1"), policy=tiny.policy).approver == "kato"
        entry = archive.log(1)[0]
        assert (entry.action, entry.actor, entry.details) == ("migrate", "perdure", {"from": 1, "to": 2})
        assert archive.verify().problems == ()
        tiny.fill(old)
        assert archive.verify().ok
    after, schema = rows(old / FILE_NAME)
    assert schema == 2
    assert all(after[table][: len(found)] == found for table, found in before.items())


def test_opening_twice_migrates_once(old):
    for _ in range(2):
        with Archive.open(old) as archive:
            assert [entry.action for entry in archive.log()].count("migrate") == 1


@pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name)
def test_a_kill_while_migrating(old, in_child, point):
    before = rows(old / FILE_NAME)
    code = in_child(lambda: Archive.open(old).close(), failpoint=point)
    assert code == (-9 if point in PASSED else 0)
    if point in PASSED and point != Point.TRANSACTION_COMMITTED:
        assert rows(old / FILE_NAME) == before
    with Archive.open(old) as archive:
        assert archive.verify().problems == ()
        assert [entry.action for entry in archive.log()].count("migrate") == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE ledger SET actor = 'hara' WHERE sequence = 3",
        "UPDATE approvals SET approver = 'hara'",
        "DELETE FROM alias_moves WHERE sequence = (SELECT MAX(sequence) FROM alias_moves)",
    ],
)
def test_a_tampered_workspace_is_not_migrated(old, damage):
    connection = sqlite3.connect(old / FILE_NAME)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(damage)
    connection.commit()
    connection.close()
    before = rows(old / FILE_NAME)
    with pytest.raises(IntegrityError, match="cannot be brought up to date"):
        Archive.open(old)
    assert rows(old / FILE_NAME) == before


def test_two_processes_open_an_old_workspace(old):
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 70
            try:
                Archive.open(old).close()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    with Archive.open(old) as archive:
        assert [entry.action for entry in archive.log()].count("migrate") == 1
        assert archive.verify().ok
