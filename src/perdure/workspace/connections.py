"""A SQLite file with a connection for each thread: what the workspace's database and those beside it share."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_BUSY_S = 10.0


class Connections:
    """One file, a connection for each thread; a forked child opens its own.

    Attributes:
        path: The file.
    """

    def __init__(
        self, path: Path, settings: Sequence[str], factory: type[sqlite3.Connection] = sqlite3.Connection
    ) -> None:
        """Nothing is opened yet.

        Args:
            path: The file; made, for its owner alone, when it is first needed.
            settings: What `PRAGMA` sets in each connection, in this order.
            factory: What connections are.
        """
        self.path = path
        self._settings, self._factory = settings, factory
        self._local = threading.local()
        self._opened: dict[tuple[int, threading.Thread], sqlite3.Connection] = {}
        self._opening = threading.Lock()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None or self._local.process != os.getpid():
            found = self._connect()
            self._local.connection, self._local.process = found, os.getpid()
            self._keep(found)
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
        """Close every connection that this process opened."""
        if getattr(self._local, "process", None) in (None, os.getpid()):
            for connection in self._opened.values():
                connection.close()
        self._opened.clear()
        self._local = threading.local()

    def _keep(self, found: sqlite3.Connection) -> None:
        """Note this thread's connection, and close those of threads that ended: servers replace theirs for ever."""
        with self._opening:
            own = os.getpid()  # what a fork inherited is never closed
            for key in [key for key in self._opened if key[0] == own and not key[1].is_alive()]:
                self._opened.pop(key).close()
            self._opened[own, threading.current_thread()] = found

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, factory=self._factory
        )
        connection.row_factory = sqlite3.Row
        for setting in self._settings:
            connection.execute(f"PRAGMA {setting}")
        return connection
