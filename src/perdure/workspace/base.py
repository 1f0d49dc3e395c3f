"""What every part of an archive stands on: the folder, its database, its objects, and the order of writes."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from perdure.errors import IntegrityError, PerdureError, WorkspaceError
from perdure.workspace import decisions, ledger, people, verify
from perdure.workspace.database import Database, DiskError, DiskFullError, translated
from perdure.workspace.lock import WriterLock, drop_ballast, keep_ballast
from perdure.workspace.objects import ObjectStore
from perdure.workspace.records import BASE, CANDIDATE, Version
from perdure.workspace.rows import Row, governed_rows, rows_about


class Base:
    """One workspace folder, opened.

    Attributes:
        folder: The workspace's folder.
        lock: The right to write; its `wait_s` says how long a second writer waits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.lock = WriterLock(self.folder)
        self._database = Database(self.folder)
        self._store = ObjectStore(self.folder, self._database)

    def close(self) -> None:
        """Close the connections to the database; the archive can be used again and then reopens them."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self, action: str, actor: str) -> Iterator[None]:
        """Hold the writer's lock; a failing disk is noted in the ledger and named to the caller."""
        doing = f"{action} in {self.folder}"
        with translated(doing), self.lock.held(action, actor):
            if action != "create":
                keep_ballast(self.folder)
            try:
                with translated(doing):
                    if action != "create":
                        people.check_permitted(self._checked(), action, actor)
                    yield
            except DiskError as error:
                self._note_fault(action, actor, error)
                raise

    def _note_fault(self, action: str, actor: str, error: DiskError) -> None:
        if isinstance(error, DiskFullError):
            drop_ballast(self.folder)
        with suppress(OSError, PerdureError, sqlite3.Error):
            self._store.sweep()
            with self._database.transaction() as connection:
                ledger.append(connection, "fault", {"during": action, "error": str(error)}, actor)

    def _checked(self) -> sqlite3.Connection:
        """The connection, once it is known that no governed row is missing."""
        connection = self._database.connection()
        ledger.check_complete(connection)
        return connection

    def _find(self) -> list[Version]:
        """Every version, oldest first."""
        connection = self._database.connection()
        return self._versions(governed_rows(connection, "versions"), connection)

    def _with_id(self, name: str) -> list[Version]:
        """The version of an id, if there is one."""
        connection = self._database.connection()
        return self._versions(rows_about(connection, "versions", "id", name), connection)

    def _versions(self, rows: list[Row], connection: sqlite3.Connection) -> list[Version]:
        standings = decisions.standings(connection) if rows else {}
        return [self._version(row, standings) for row in rows]

    def _by_id(self, name: str) -> Version:
        """The version of an id that another row names."""
        found = self._with_id(name)
        if len(found) != 1:
            raise IntegrityError(f"the database names version {name[:12]}… and does not have it; run verify")
        return found[0]

    def _version(self, row: Mapping[str, Any], standings: Mapping[str, str]) -> Version:
        status = standings.get(row["id"], CANDIDATE)
        return Version(
            number=row["number"],
            id=row["id"],
            parent=row["parent"],
            requester=row["requester"],
            created=row["time"],
            status=BASE if status == CANDIDATE and row["number"] == 0 else status,
            read_manifest=partial(verify.stored_manifest, self._store, row["number"], row["id"], row["parent"]),
        )

    @translated("looking up a version")
    def _own(self, version: Version) -> Version:
        """The version as this workspace knows it now."""
        found = self._with_id(version.id)
        if not found:
            raise WorkspaceError(f"{version.name} ({version.id[:12]}…) is no version of {self.folder}")
        return found[0]
