"""A database as the first schema had it: what workspaces from then look like."""

import sqlite3

from perdure.workspace.schema import STATEMENTS, TABLES

_GOVERNED = ("versions", "reports", "approvals", "alias_moves")
_KEPT = ("ledger", "ledger_actions", *_GOVERNED, "objects", "packs", "packed", "packed_hashes", "remembered")
_ALIAS_MOVES = """CREATE TABLE alias_moves (
        sequence INTEGER PRIMARY KEY REFERENCES ledger (sequence), alias TEXT NOT NULL,
        version TEXT NOT NULL REFERENCES versions (id), previous TEXT REFERENCES versions (id),
        kind TEXT NOT NULL CHECK (kind IN ('promote', 'rollback')), policy TEXT)"""


def _triggers():
    for table in ("ledger", *_GOVERNED):
        for verb in ("UPDATE", "DELETE"):
            yield (
                f"{table}_no_{verb.lower()}",
                f"BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
            )
    yield (
        "approvals_four_eyes",
        "BEFORE INSERT ON approvals WHEN NEW.decision = 'approved' AND lower(trim(NEW.approver)) = "
        "(SELECT lower(trim(requester)) FROM versions WHERE id = NEW.version) "
        "BEGIN SELECT RAISE(ABORT, 'four eyes: the requester cannot approve'); END",
    )


def downgrade(file):
    """Turn a database without any new kind of row into one of schema 1."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN")
    names = connection.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    for kind, name in names:
        if kind in ("trigger", "index") and name not in _KEPT:
            connection.execute(f"DROP {kind} {name}")
    for name in TABLES:
        if name not in _KEPT and STATEMENTS[name].startswith("CREATE TABLE"):
            connection.execute(f"DROP TABLE {name}")
    rows = connection.execute("SELECT * FROM alias_moves").fetchall()
    connection.execute("DROP TABLE alias_moves")
    connection.execute(_ALIAS_MOVES)
    connection.executemany("INSERT INTO alias_moves VALUES (?,?,?,?,?,?)", rows)
    for name, body in _triggers():
        connection.execute(f"CREATE TRIGGER {name} {body}")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
