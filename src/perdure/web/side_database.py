"""A SQLite file beside the workspace's own, for what is no decision: logins, the queue, traffic."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from perdure.errors import WorkspaceError

_BUSY_S = 10.0


class SideDatabase:
    """One file with a connection for each thread; a forked child opens its own.

    Attributes:
        path: The file.
    """

    def __init__(
        self, path: Path, steps: Sequence[Sequence[str]], synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> None:
        """Open the file, or make it.

        Args:
            path: The file.
            steps: What each schema added to the one before, as statements.
            synchronous: FULL: what is written is on the disk; NORMAL: a power cut may take the last moments.

        Raises:
            WorkspaceError: A newer perdure wrote it.
        """
        self.path = path
        self._synchronous = synchronous
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lay_out(steps)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None or self._local.process != os.getpid():
            found = self._connect()
            self._local.connection, self._local.process = found, os.getpid()
            self._opened.append(found)
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of the block, or nothing of it."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        settings = ("journal_mode = WAL", f"synchronous = {self._synchronous}", "foreign_keys = ON")
        for setting in (*settings, "recursive_triggers = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def _lay_out(self, steps: Sequence[Sequence[str]]) -> None:
        with self.transaction() as connection:
            found, newest = int(connection.execute("PRAGMA user_version").fetchone()[0]), len(steps)
            if found > newest:
                raise WorkspaceError(
                    f"{self.path.name} was written by a newer perdure (schema {found}; this one knows up to {newest}). "
                    "Update perdure"
                )
            for statement in (each for step in steps[found:] for each in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {newest}")
