"""Approvals, aliases and the ledger: by the API, by raw SQL and by two processes at once."""

import os
import sqlite3
import threading

import pytest

from perdure.errors import RefusedError, SettingError, WorkspaceError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME, STATEMENTS
from perdure.workspace.ledger import GOVERNED


def report_of(archive, version):
    query = "SELECT digest FROM reports WHERE version = ? ORDER BY sequence DESC"
    return archive._database.connection().execute(query, (version.id,)).fetchone()[0]


def test_an_approval_holds_for_its_triple_only(archive, tiny):
    v1 = archive.version("v1")
    approval = archive.approval(v1, policy=tiny.policy)
    assert (approval.approver, approval.version, approval.report) == ("kato", v1.id, report_of(archive, v1))
    assert archive.approval(v1, policy="another policy") is None
    assert archive.approval(archive.version("v2"), policy=tiny.policy) is None
    archive.put_report(v1, {"retention": 0.1}, actor="mori")
    assert archive.approval(v1, policy=tiny.policy) is None
    assert archive.version("v1").status == "candidate"
    archive.put_report(v1, {"retention": 0.99}, actor="mori")
    assert archive.approval(v1, policy=tiny.policy) == approval


def test_a_rejection_voids_what_came_before(archive, tiny):
    v1 = archive.version("v1")
    archive.reject(v1, actor="sato", reason="wrong price")
    assert archive.approval(v1, policy=tiny.policy) is None
    assert archive.version("v1").status == "rejected"
    with pytest.raises(RefusedError, match="rejected"):
        archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected="any")
    archive.approve(v1, report=report_of(archive, v1), policy=tiny.policy, actor="kato")
    assert archive.approval(v1, policy=tiny.policy).approver == "kato"


@pytest.mark.parametrize("name", ["mori", "Mori", " mori ", "ｍｏｒｉ", "MORI"])
def test_the_requester_cannot_approve(archive, name, tiny):
    v2 = archive.version("v2")
    with pytest.raises(RefusedError, match="four eyes"):
        archive.approve(v2, report=report_of(archive, v2), policy=tiny.policy, actor=name)
    assert archive.approval(v2, policy=tiny.policy) is None
    assert archive.verify().ok


@pytest.mark.parametrize("name", ["mori", "MORI", " mori "])
def test_four_eyes_hold_in_the_database(shop, tiny, name):
    with Archive.open(shop) as archive:
        v2 = archive.version("v2").id
    connection = sqlite3.connect(shop / FILE_NAME)
    with pytest.raises(sqlite3.IntegrityError, match="four eyes"):
        connection.execute("INSERT INTO approvals VALUES (99, ?, 'approved', 'r', 'p', ?, '')", (v2, name))
    connection.close()


def test_an_approval_forged_by_sql_counts_for_nothing(shop, tiny):
    with Archive.open(shop) as archive:
        v2 = archive.version("v2")
        report = report_of(archive, v2)
    connection = sqlite3.connect(shop / FILE_NAME)
    values = (99, v2.id, "approved", report, tiny.policy, "kato", "")
    connection.execute("INSERT INTO approvals VALUES (?,?,?,?,?,?,?)", values)
    connection.commit()
    connection.close()
    with Archive.open(shop) as archive:
        with pytest.raises(Exception, match="ledger"):
            archive.promote(v2, "production", actor="mori", policy=tiny.policy, expected="any")
        assert not archive.verify().ok


@pytest.mark.parametrize("table", [*GOVERNED, "ledger"])
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "REPLACE"])
def test_rows_cannot_be_rewritten(full_shop, table, verb):
    connection = sqlite3.connect(full_shop / FILE_NAME)
    statements = {
        "UPDATE": f"UPDATE {table} SET sequence = sequence",
        "DELETE": f"DELETE FROM {table}",
        "REPLACE": f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
    }
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|must follow|one at a time"):
        connection.execute(statements[verb])
    connection.close()


def test_the_ledger_grows_at_its_end_only(shop):
    connection = sqlite3.connect(shop / FILE_NAME)
    last = connection.execute("SELECT MAX(sequence), hash FROM ledger").fetchone()
    for sequence, previous in ((last[0] + 1, "wrong"), (last[0] + 2, last[1])):
        with pytest.raises(sqlite3.IntegrityError, match="must follow"):
            values = (sequence, previous, "t", "a", "b", "{}", "h")
            connection.execute("INSERT INTO ledger VALUES (?,?,?,?,?,?,?)", values)
    connection.close()


def test_each_missing_rule_is_noticed(shop):
    triggers = [name for name, sql in STATEMENTS.items() if sql.startswith("CREATE TRIGGER")]
    assert len(triggers) == 56
    for name in triggers:
        connection = sqlite3.connect(shop / FILE_NAME)
        connection.execute(f"DROP TRIGGER {name}")
        connection.close()
        with Archive.open(shop) as archive:
            assert archive.verify().problems == (f"database: {name} is missing; its rule no longer holds",)
            archive._database.connection().execute(STATEMENTS[name])
            assert archive.verify().ok


def test_an_approval_needs_the_latest_report(archive, tiny):
    v0, v1, _ = archive.versions()
    with pytest.raises(RefusedError, match="it has none"):
        archive.approve(v0, report="0" * 64, policy=tiny.policy, actor="kato")
    old = report_of(archive, v1)
    archive.put_report(v1, {"retention": 0.2}, actor="mori")
    with pytest.raises(RefusedError, match="its latest is"):
        archive.approve(v1, report=old, policy=tiny.policy, actor="kato")
    with pytest.raises(SettingError, match="policy"):
        archive.approve(v1, report=report_of(archive, v1), policy="", actor="kato")
    with pytest.raises(SettingError, match="reason"):
        archive.reject(v1, actor="kato", reason=" ")


def test_the_same_report_twice_is_one(archive):
    v1 = archive.version("v1")
    rows = len(archive.log())
    archive.put_report(v1, {"retention": 0.99}, actor="mori")
    assert len(archive.log()) == rows
    assert archive.report(v1) == {"retention": 0.99}
    assert archive.report(archive.version("v0")) is None


def test_production_needs_an_approval_and_staging_does_not(archive, tiny):
    v0, v1, v2 = archive.versions()
    with pytest.raises(RefusedError, match="no valid approval"):
        archive.promote(v2, "production", actor="mori", policy=tiny.policy, expected=v0)
    with pytest.raises(RefusedError, match="no valid approval"):
        archive.promote(v1, "production", actor="mori", policy="other", expected=v0)
    assert archive.aliases()["production"] == v0
    archive.promote(v2, "staging", actor="mori", policy="", expected=v1)
    archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected=v0)
    held = {alias: version.name for alias, version in archive.aliases().items()}
    assert held == {"production": "v1", "staging": "v2"}


def test_promotion_compares_first(archive, tiny):
    v0, v1, v2 = archive.versions()
    for expected in (v0, v2, None):
        with pytest.raises(WorkspaceError, match="'staging' holds v1, not"):
            archive.promote(v2, "staging", actor="mori", policy="", expected=expected)
    with pytest.raises(WorkspaceError, match="'canary' holds nothing, not v1"):
        archive.promote(v2, "canary", actor="mori", policy="", expected=v1)
    archive.promote(v2, "canary", actor="mori", policy="", expected=None)
    rows = len(archive.log())
    archive.promote(v2, "canary", actor="mori", policy="", expected=None)
    assert len(archive.log()) == rows


@pytest.mark.parametrize("alias", ["latest", "v1", "v12", "Production", "", "1st", "a" * 33, "a b", "../x", "ä"])
def test_bad_alias_names_are_refused(archive, alias):
    with pytest.raises(SettingError):
        archive.promote(archive.version("v1"), alias, actor="mori", policy="", expected="any")


def test_rollbacks_walk_back_and_never_swing(archive):
    v0, v1, v2 = archive.versions()
    archive.promote(v2, "staging", actor="mori", policy="", expected=v1)
    archive.promote(v0, "staging", actor="mori", policy="", expected=v2)
    walked = [archive.rollback("staging", actor="mori").name for _ in range(3)]
    assert walked == ["v2", "v1", "v0"]
    with pytest.raises(WorkspaceError, match="held no other version"):
        archive.rollback("staging", actor="mori")
    archive.promote(v2, "staging", actor="mori", policy="", expected=v0)
    assert archive.rollback("staging", actor="mori") == v0
    history = archive.alias_history("staging")
    assert [move.kind for move in history[-2:]] == ["promote", "rollback"]
    assert history[-1].previous == v2.id
    assert archive.verify().ok


def test_rollbacks_pass_over_rejected_versions(archive):
    _, v1, v2 = archive.versions()
    archive.promote(v2, "staging", actor="mori", policy="", expected=v1)
    archive.reject(v1, actor="kato", reason="wrong law")
    assert archive.rollback("staging", actor="mori").name == "v0"


def test_rollback_of_an_unknown_alias(archive):
    with pytest.raises(WorkspaceError, match="no version was ever promoted"):
        archive.rollback("canary", actor="mori")


def test_two_processes_promote_and_one_wins(template, tmp_path):
    import shutil

    for race in range(4):
        shop = tmp_path / f"shop{race}"
        shutil.copytree(template.folder, shop)
        start, go = os.pipe()
        children = []
        for name in ("v0", "v2"):
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    with Archive.open(shop) as archive:
                        version, expected = archive.version(name), archive.version("v1")
                        os.close(go)
                        os.read(start, 1)
                        try:
                            archive.promote(version, "staging", actor=name, policy="", expected=expected)
                            code = 0
                        except WorkspaceError as error:
                            code = 5 if "moved meanwhile" in str(error) else 6
                finally:
                    os._exit(code)
            children.append(child)
        os.close(start)
        os.close(go)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 5]
        with Archive.open(shop) as archive:
            assert archive.aliases()["staging"].name == ("v0", "v2")[codes.index(0)]
            assert archive.verify().ok


def test_a_second_writer_learns_who_holds_the_workspace(archive):
    started, release = threading.Event(), threading.Event()

    def hold():
        with archive.lock.held("commit", "tanaka"):
            started.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(10)
    archive.lock.wait_s = 0.05
    try:
        with pytest.raises(WorkspaceError, match=r"written by tanaka \(commit, process \d+ on .*waited 0.05 s"):
            archive.reject(archive.version("v1"), actor="kato", reason="no")
        archive.record("note", {}, actor="kato")
    finally:
        release.set()
        thread.join()
    archive.reject(archive.version("v1"), actor="kato", reason="no")


def test_threads_share_one_archive(archive):
    errors = []

    def work(number):
        try:
            for step in range(5):
                archive.put_report(archive.version("v2"), {"n": number, "step": step}, actor="mori")
                archive.tensors(archive.version("v2"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert archive.verify().ok


def test_the_ledger_tells_what_happened(archive):
    archive.record("measure", {"version": "v1", "score": 0.5}, actor="tanaka")
    log = archive.log()
    assert [entry.action for entry in log[:4]] == ["create", "commit", "report", "approve"]
    assert [entry.sequence for entry in log] == list(range(1, len(log) + 1))
    assert all(entry.is_whole() for entry in log)
    assert [entry.previous for entry in log[1:]] == [entry.hash for entry in log[:-1]]
    assert log[-1].details == {"version": "v1", "score": 0.5}
    assert [entry.action for entry in archive.log(1)] == ["measure"]


@pytest.mark.parametrize("action", ["promote", "approve", "create", "", " "])
def test_the_archives_own_actions_cannot_be_recorded(archive, action):
    with pytest.raises(SettingError, match="cannot be"):
        archive.record(action, {}, actor="mori")
