"""Bringing a database of an older schema up to date: in one transaction, with a row in the ledger."""

import sqlite3

from perdure.errors import IntegrityError
from perdure.workspace import ledger
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.people import SYSTEM
from perdure.workspace.schema import SCHEMA, STATEMENTS

_REBUILT = ("alias_moves",)  # whose columns are the same and whose checks are not


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Turn schema 1 into this one, within the caller's transaction.

    Raises:
        IntegrityError: The old rows are not what their ledger says; nothing is changed then.
    """
    known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")}
    problems = ledger.check_chain(connection)
    problems += ledger.check_governed(connection, [table for table in ledger.GOVERNED if table in known])
    if problems:
        raise IntegrityError(f"{'; '.join(problems[:3])}. The database cannot be brought up to date; restore a backup")
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{trigger}"')
    for table in _REBUILT:
        rows = connection.execute(f"SELECT * FROM {table} ORDER BY sequence").fetchall()  # noqa: S608
        connection.execute(f"DROP TABLE {table}")
        connection.execute(STATEMENTS[table])
        marks = ",".join("?" * len(rows[0])) if rows else ""
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", [tuple(row) for row in rows])  # noqa: S608
    for name, statement in STATEMENTS.items():
        if name not in known or statement.startswith("CREATE TRIGGER"):
            connection.execute(statement)
    reach(Point.MIGRATION_TABLES_MADE)
    ledger.append(connection, ledger.MIGRATE, {"from": found, "to": SCHEMA}, SYSTEM)
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
