"""The server's own database: accounts, logins, tokens, the queue. Decisions are the workspace's, never here."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perdure.web.side_database import SideDatabase

FILE_NAME = "server.sqlite"
_FIRST = (
    """CREATE TABLE users (
        name TEXT PRIMARY KEY, folded TEXT NOT NULL UNIQUE, password TEXT, language TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL, disabled INTEGER NOT NULL DEFAULT 0)""",
    "CREATE TABLE invitations (hash TEXT PRIMARY KEY, name TEXT UNIQUE, expires REAL NOT NULL)",
    """CREATE TABLE logins (
        hash TEXT PRIMARY KEY, name TEXT NOT NULL REFERENCES users (name), created REAL NOT NULL,
        seen REAL NOT NULL)""",
    """CREATE TABLE tokens (
        id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL REFERENCES users (name),
        label TEXT NOT NULL, scopes TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL)""",
    "CREATE TABLE failures (key TEXT NOT NULL, time REAL NOT NULL)",
    "CREATE INDEX failures_key ON failures (key, time)",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY, place INTEGER NOT NULL UNIQUE, lane TEXT NOT NULL, kind TEXT NOT NULL,
        requester TEXT NOT NULL, title TEXT NOT NULL, payload TEXT NOT NULL, data BLOB, state TEXT NOT NULL,
        stage TEXT NOT NULL DEFAULT '', done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, stop INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL,
        changed REAL NOT NULL, result TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX jobs_state ON jobs (lane, state, place)",
)
_PROVIDER = (
    """CREATE TABLE identities (
        issuer TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL UNIQUE REFERENCES users (name),
        PRIMARY KEY (issuer, subject))""",
    "CREATE TABLE expected (person TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE REFERENCES users (name))",
    """CREATE TABLE flows (
        state TEXT PRIMARY KEY, browser TEXT NOT NULL, nonce TEXT NOT NULL, purpose TEXT NOT NULL,
        kept TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL)""",
    """CREATE TABLE confirmations (
        login TEXT NOT NULL, act TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (login, act))""",
)
# What each schema added to the one before.
_STEPS = (_FIRST, _PROVIDER)
SCHEMA = len(_STEPS)


class Store(SideDatabase):
    """One SQLite file beside the workspace's.

    Attributes:
        clock: The time in seconds since 1970.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(folder / FILE_NAME, _STEPS)
        self.clock = clock

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The rows that a query gives."""
        return [dict(row) for row in self.connection().execute(query, values)]

    def row(self, query: str, *values: Any) -> dict[str, Any] | None:
        """The first row that a query gives; None without one."""
        found = self.connection().execute(query, values).fetchone()
        return None if found is None else dict(found)

    def write(self, query: str, *values: Any) -> int:
        """Carry out one statement, durably; how many rows it changed."""
        with self.transaction() as connection:
            return connection.execute(query, values).rowcount
