"""Whether anybody wrote to a workspace since somebody last looked: a question cheap enough for every request."""

import sqlite3
import threading
from pathlib import Path

from perdure.workspace.database import FILE_NAME


class Watch:
    """Notices every transaction on a workspace's database, by whichever thread or process; safe for several threads."""

    def __init__(self, folder: Path) -> None:
        # A connection of its own: SQLite counts what *other* connections committed.
        where = f"{(folder / FILE_NAME).resolve().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        self._seen: int | None = None

    def moved(self) -> bool:
        """Whether something was written since the last call; true at the first."""
        with self._lock:
            now = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
            seen, self._seen = self._seen, now
        return now != seen

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._connection.close()
