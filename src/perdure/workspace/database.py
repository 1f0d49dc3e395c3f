"""The workspace's database: SQLite with full syncs, append-only tables and rules that hold below the API.

Weights never lie here: only names, hashes, decisions and the ledger.
"""

import errno
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from perdure.errors import IntegrityError, RefusedError, WorkspaceError
from perdure.workspace.connections import Connections
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.rows import Connection, KeptRows
from perdure.workspace.schema import SCHEMA, STATEMENTS, TABLES

FILE_NAME = "perdure.sqlite"
_APPLICATION = 0x70657264  # "perd"


_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "recursive_triggers = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
)


class Database(Connections):
    """The workspace's SQLite file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE_NAME, _SETTINGS, Connection)
        self._kept = KeptRows()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of the block's rows become durable when it ends, or none."""
        with super().transaction() as connection:
            reach(Point.TRANSACTION_BEGUN)
            yield connection
            reach(Point.TRANSACTION_READY)
        reach(Point.TRANSACTION_COMMITTED)
        # A damaged write-ahead log is dropped in silence by SQLite, so it is kept as short as can be.
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def schema(self) -> int:
        """The schema number that the file carries; 0 for an empty file."""
        return int(self.connection().execute("PRAGMA user_version").fetchone()[0])

    def check_tables(self) -> None:
        """Check that the tables are those of this schema; their rules are left to verification.

        Raises:
            IntegrityError: One is missing or altered.
        """
        problems = altered(self.connection(), TABLES)
        if problems:
            raise IntegrityError(f"{'; '.join(problems)}. {FILE_NAME} is damaged; restore it from a backup")

    def _connect(self) -> Connection:
        connection = super()._connect()
        assert isinstance(connection, Connection)
        connection.kept = self._kept
        return connection


def lay_out(connection: sqlite3.Connection) -> None:
    """Make the tables and rules, within the caller's transaction."""
    for statement in STATEMENTS.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def check_file(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the database file and its rules, in plain words; empty when nothing is."""
    problems = [f"database: {row[0]}" for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    problems += [
        f"database: a row of {row[0]} refers to a row of {row[2]} that does not exist"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return problems + altered(connection, STATEMENTS)


def altered(connection: sqlite3.Connection, statements: Mapping[str, str]) -> list[str]:
    """Which tables and rules are missing, altered or too many, in plain words."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    present = {row["name"]: row["sql"] for row in connection.execute(query)}
    problems = []
    for name, statement in statements.items():
        if name not in present:
            problems.append(f"database: {name} is missing; its rule no longer holds")
        elif present[name] != statement:
            problems.append(f"database: {name} was altered")
    strange = sorted(present.keys() - STATEMENTS.keys())
    return problems + [f"database: {name} does not belong here" for name in strange]


class DiskError(WorkspaceError):
    """The disk or the database's file answered with an error."""


class DiskFullError(DiskError):
    """No space is left on the disk that holds the workspace or the target folder."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn the errors of SQLite and of the disk within the block into perdure's own kinds."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        if _RULE.match(str(error)):
            raise RefusedError(f"{doing}: {error}") from error
        raise IntegrityError(f"{doing}: the database refused a row: {error}") from error
    except sqlite3.Error as error:
        raise _database_error(doing, error) from error
    except UnicodeDecodeError as error:  # raised by the driver on a damaged page
        raise IntegrityError(f"{doing}: {FILE_NAME} is damaged; restore it from a backup") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{doing}: {_FULL}") from error
        raise DiskError(f"{doing}: the disk answered with an error, nothing was changed: {error}") from error


_RULE = re.compile("four eyes|roles|consent|canary|kpis:")  # how the refusals of the schema's rules begin
_DAMAGE = re.compile("no such|not decode|malformed|syntax error")
_FULL = "the disk is full, nothing was changed. Free some space and repeat"


def _database_error(doing: str, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return DiskFullError(f"{doing}: {_FULL}")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return IntegrityError(f"{doing}: {FILE_NAME} is damaged ({error}); restore it from a backup")
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return WorkspaceError(f"{doing}: another process is writing to {FILE_NAME}; try again")
    if isinstance(error, sqlite3.OperationalError) and _DAMAGE.search(str(error)):
        return IntegrityError(f"{doing}: {FILE_NAME} is damaged ({error}); restore it from a backup")
    return DiskError(f"{doing}: the database answered with an error, nothing was changed: {error}")
