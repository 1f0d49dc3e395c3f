"""The archive of one workspace folder: objects, versions, aliases, approvals and the ledger together.

Every write follows one order: files are written, synced and renamed first; then one transaction lists
them, adds the row and its ledger row, and commits. A crash leaves the state before or after, never between.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from perdure.content import canonical_json, digest_json, sync_folder, write_atomic
from perdure.errors import (
    IntegrityError,
    PerdureError,
    SettingError,
    WorkspaceError,
)
from perdure.models.checkpoint import Checkpoint
from perdure.workspace import garbage, ledger, migrations, verify
from perdure.workspace.contents import OWN_FOLDERS
from perdure.workspace.database import FILE_NAME, translated
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.governing import words
from perdure.workspace.ledger import LedgerEntry, checked_actor, plain_json
from perdure.workspace.lineage import Lineages
from perdure.workspace.lock import keep_ballast
from perdure.workspace.people import SYSTEM
from perdure.workspace.records import (
    GarbageReport,
    Verification,
)
from perdure.workspace.schema import SCHEMA

_UNFINISHED = "unfinished"
_VERIFIED = "verified"


class Archive(Lineages):
    """What one workspace folder remembers; safe for several threads and processes at once.

    Attributes:
        folder: The workspace's folder.
        lock: The right to write; its `wait_s` says how long a second writer waits.
    """

    # Opening

    @classmethod
    def create(cls, folder: Path, checkpoint: Checkpoint, *, actor: str, source: str) -> Self:
        """A new workspace whose version v0 is the checkpoint, copied.

        Args:
            folder: Missing or empty, or left by a creation that did not finish.
            checkpoint: The model to start from.
            actor: Who creates it.
            source: Where the model came from, in words: a hub id, a folder, a file.

        Raises:
            WorkspaceError: The folder is not empty.
            ModelError: A weight is NaN or infinite.
        """
        actor = checked_actor(actor)
        folder = Path(folder)
        with translated(f"creating {folder}"):
            _claim(folder)
        archive = cls(folder)
        reach(Point.CREATE_FOLDER_MADE)
        with archive._writing("create", actor):
            archive._clear_unfinished()
            archive._import(checkpoint, actor, source)
            (folder / _UNFINISHED).unlink()
            sync_folder(folder)
            reach(Point.CREATE_MARK_REMOVED)
        return archive

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The workspace in `folder`; what crashes left in it is swept away.

        Raises:
            WorkspaceError: There is none, its creation did not finish, or a newer perdure wrote it.
            IntegrityError: Its database is damaged.
        """
        folder = Path(folder)
        if not (folder / FILE_NAME).is_file():
            reason = "its creation did not finish" if (folder / _UNFINISHED).exists() else f"no {FILE_NAME}"
            raise WorkspaceError(
                f"{folder} holds no workspace ({reason}). Create one with perdure init, or name its folder: --workspace"
            )
        archive = cls(folder)
        with translated(f"opening {folder}"):
            archive._check_schema()
            archive._sweep()
        return archive

    def _check_schema(self) -> None:
        found = self._database.schema()
        if found > SCHEMA:
            raise WorkspaceError(
                f"{self.folder} was written by a newer perdure (schema {found}; this one knows up to {SCHEMA}). "
                "Update perdure"
            )
        if found < 1 and (self.folder / _UNFINISHED).exists():
            raise WorkspaceError(f"{self.folder}: its creation did not finish. Create it again")
        if found < 1:
            raise IntegrityError(f"{self.folder}: {FILE_NAME} is empty; restore it from a backup")
        if found < SCHEMA:
            self._migrate()
        self._database.check_tables()

    def _migrate(self) -> None:
        with self.lock.held("migrate", SYSTEM), self._database.transaction() as connection:
            found = self._database.schema()
            if found < SCHEMA:  # another process may have been faster
                migrations.migrate(connection, found)

    def _sweep(self) -> None:
        # Only when nobody writes: a writer's temporary files are not left-overs.
        with suppress(WorkspaceError, OSError), self.lock.held("open", SYSTEM, wait_s=0):
            self._store.sweep()
            (self.folder / _UNFINISHED).unlink(missing_ok=True)
            keep_ballast(self.folder)

    def _clear_unfinished(self) -> None:
        """Remove what an unfinished creation left; refuse if another one finished meanwhile."""
        database = self.folder / FILE_NAME
        if database.exists() and self._database.schema() > 0:
            (self.folder / _UNFINISHED).unlink(missing_ok=True)
            raise WorkspaceError(f"{self.folder} holds a workspace already; open it, or name a new folder")
        self._database.close()
        for path in (*(self.folder / name for name in OWN_FOLDERS), *self.folder.glob(f"{FILE_NAME}*")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._store.lay_out()

    # The ledger and the whole

    @translated("writing to the ledger")
    def record(self, action: str, details: Mapping[str, Any], *, actor: str) -> None:
        """Add a row of the caller's own to the ledger."""
        if action in ledger.RESERVED or not action.strip():
            raise SettingError(
                f"a recorded action cannot be {action!r}; "
                f"empty and the archive's own are taken: {', '.join(sorted(ledger.RESERVED))}"
            )
        actor, details = checked_actor(actor), plain_json(details)
        with self._database.transaction() as connection:
            ledger.append(connection, words(action), details, actor)

    @translated("reading the ledger")
    def log(
        self, limit: int | None = None, *, before: int | None = None, after: int = 0, words: str = ""
    ) -> list[LedgerEntry]:
        """The ledger, oldest first; with a limit, only its newest so many rows.

        Args:
            limit: At most so many.
            before: Only rows with a smaller number.
            after: Only rows with a larger number.
            words: Only rows that hold each of these words in their actor, action or details.
        """
        return ledger.entries(self._database.connection(), limit, before=before, after=after, words=words)

    def verify(self, *, deep: bool = True, head: str | None = None) -> Verification:
        """Check the whole workspace; everything wrong with it, in plain words.

        Args:
            deep: Read every byte of every object; otherwise only presence and sizes.
            head: The hash of a ledger row noted earlier outside the workspace (`Verification.head`); a
                ledger that was cut or rewritten no longer has it.
        """
        return verify.check_workspace(self._store, self._database, deep=deep, head=head)

    def note_verified(self) -> None:
        """Remember that every byte was found whole now, for `last_verified`."""
        with suppress(PerdureError):  # a full disk does not spoil what was found
            self.remember(_VERIFIED, _VERIFIED, {"time": ledger.now()})

    def last_verified(self) -> str | None:
        """When every byte was last found whole, as remembered: UTC, ISO 8601; None where it is not known."""
        found = self.recall(_VERIFIED, _VERIFIED)
        return None if found is None else str(found["time"])

    def collect_garbage(self) -> GarbageReport:
        """Move files that no version, report or approval needs to the quarantine folder.

        Raises:
            IntegrityError: A manifest cannot be read, so what is needed is not known; nothing was moved.
        """
        with self._writing("collect garbage", SYSTEM):
            found = [(version.id, version.read_manifest()) for version in self.versions()]
            with self._database.transaction() as connection:
                live = garbage.marked(connection, found)
                garbage.strike(connection, live)
            return garbage.quarantine(self._store, self._database.connection(), live)

    @translated("remembering a value")
    def remember(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep a small JSON value that can be computed again, for example a spectrum under a tensor's hash."""
        text = canonical_json(plain_json(value))
        row = (kind, key, text, digest_json([kind, key, text]))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO remembered VALUES (?,?,?,?)", row)

    @translated("recalling a value")
    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """A value kept by `remember`; None if there is none or it is damaged."""
        query = "SELECT value, digest FROM remembered WHERE kind = ? AND key = ?"
        row = self._database.connection().execute(query, (kind, key)).fetchone()
        if row is None or digest_json([kind, key, row["value"]]) != row["digest"]:
            return None
        return verify.parsed(row["value"].encode())


def _claim(folder: Path) -> None:
    """Make the folder and mark it as being created."""
    marker = folder / _UNFINISHED
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is not a folder; name a new one")
    if folder.is_dir() and any(folder.iterdir()) and (marker.is_symlink() or not marker.is_file()):
        held = "holds a workspace already" if (folder / FILE_NAME).exists() else "is not empty"
        raise WorkspaceError(f"{folder} {held}; name a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_atomic(marker, b"")
