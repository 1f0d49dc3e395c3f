"""The archive of one workspace folder: objects, versions, aliases, approvals and the ledger together.

Every write follows one order: files are written, synced and renamed first; then one transaction lists
them, adds the row and its ledger row, and commits. A crash leaves the state before or after, never between.
"""

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from perdure.content import canonical_json, digest_json, sync_folder, write_atomic
from perdure.errors import (
    IntegrityError,
    RefusedError,
    SettingError,
    WorkspaceError,
)
from perdure.models.checkpoint import Checkpoint
from perdure.workspace import aliases, decisions, garbage, ledger, verify
from perdure.workspace.contents import OWN_FOLDERS, Contents
from perdure.workspace.database import (
    FILE_NAME,
    SCHEMA,
    translated,
)
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.ledger import LedgerEntry, checked_actor, plain_json
from perdure.workspace.lock import keep_ballast
from perdure.workspace.records import (
    AliasMove,
    Approval,
    GarbageReport,
    Verification,
    Version,
)

_UNFINISHED = "unfinished"


class Archive(Contents):
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
            raise WorkspaceError(f"{folder} holds no workspace ({reason}). Create one there first")
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
        self._database.check_tables()

    def _sweep(self) -> None:
        # Only when nobody writes: a writer's temporary files are not left-overs.
        with suppress(WorkspaceError, OSError), self.lock.held("open", "perdure", wait_s=0):
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

    # Reports and decisions

    def put_report(self, version: Version, report: Mapping[str, Any], *, actor: str) -> str:
        """Store a report as the version's latest; its digest. An approval of an earlier one is void then."""
        actor, data = checked_actor(actor), canonical_json(plain_json(report)).encode()
        version = self._own(version)
        with self._writing("report", actor):
            stored = self._store.put(data, "report")
            reach(Point.REPORT_STORED)
            with self._database.transaction() as connection:
                if decisions.latest_report(connection, version.id) != stored.hash:
                    known = self._store.listed(stored.hash) is not None
                    self._store.enter(connection, [] if known else [stored], None)
                    values = {"version": version.id, "digest": stored.hash}
                    ledger.append_row(connection, "reports", values, action="report", actor=actor)
        return stored.hash

    @translated("reading a report")
    def report_digest(self, version: Version) -> str | None:
        """The digest of the version's latest report; None if it has none."""
        return decisions.latest_report(self._checked(), version.id)

    @translated("reading a report")
    def report(self, version: Version) -> dict[str, Any] | None:
        """The version's latest report; None if it has none.

        Raises:
            IntegrityError: The stored report is missing or damaged.
        """
        digest = decisions.latest_report(self._checked(), version.id)
        return None if digest is None else self._read_report(version, digest)

    def approve(self, version: Version, *, report: str, policy: str, actor: str, comment: str = "") -> None:
        """Approve the version over its latest report and a policy; any change of the three voids it.

        Args:
            version: Which.
            report: The digest of the report that the approver saw.
            policy: The digest of the policy.
            actor: Who approves; not the requester.
            comment: Their words.

        Raises:
            RefusedError: The actor asked for the version, or the report is not its latest.
        """
        actor, version = checked_actor(actor), self._own(version)
        if not policy:
            raise SettingError("an approval needs the digest of the policy it was judged by; given none")
        values = {"version": version.id, "decision": "approved", "report": report, "policy": policy}
        with self._writing("approve", actor), self._database.transaction() as connection:
            latest = decisions.latest_report(connection, version.id)
            if latest is None or latest != report:
                has = f"its latest is {latest[:12]}…" if latest else "it has none"
                raise RefusedError(f"{version.name} cannot be approved over report {report[:12]}…: {has}")
            self._read_report(version, report)
            decisions.check_four_eyes(connection, version.id, actor)
            decisions.decide(connection, {**values, "comment": _words(comment)}, actor)

    def reject(self, version: Version, *, actor: str, reason: str) -> None:
        """Reject the version; earlier approvals are void, later ones count again."""
        actor, version = checked_actor(actor), self._own(version)
        if not reason.strip():
            raise SettingError("a rejection needs its reason, so that the requester can act on it; given none")
        with self._writing("reject", actor), self._database.transaction() as connection:
            latest = decisions.latest_report(connection, version.id)
            values = {"version": version.id, "decision": "rejected", "report": latest, "policy": None}
            decisions.decide(connection, {**values, "comment": _words(reason)}, actor)

    @translated("reading approvals")
    def approval(self, version: Version, *, policy: str) -> Approval | None:
        """The approval of exactly this version, its latest report and this policy, if none rejected it since."""
        return decisions.valid_approval(self._checked(), version.id, policy)

    def _read_report(self, version: Version, digest: str) -> dict[str, Any]:
        try:
            return verify.parsed(self._store.read(digest))
        except IntegrityError as error:
            raise IntegrityError(f"{version.name}, its report: {error}") from error

    # Aliases

    def promote(
        self,
        version: Version,
        alias: str,
        *,
        actor: str,
        policy: str,
        expected: Version | Literal["any"] | None,
    ) -> None:
        """Let an alias hold the version, if it holds what the caller thinks.

        If the alias holds the version already, nothing is done, so a repeat after a crash is harmless.

        Args:
            version: Which.
            alias: "production", "staging" or any other name.
            actor: Who promotes.
            policy: The digest of the policy in force; production needs a valid approval under it, except
                for the base, which is what was served before any change.
            expected: What the alias must hold now; None for nothing yet, "any" not to care.

        Raises:
            RefusedError: Production without a valid approval.
            WorkspaceError: The alias holds something else.
        """
        actor, alias, version = checked_actor(actor), aliases.checked_alias(alias), self._own(version)
        with self._writing("promote", actor), self._database.transaction() as connection:
            held = aliases.heads(connection).get(alias)
            if held == version.id:
                return
            if expected != "any" and held != (expected.id if isinstance(expected, Version) else None):
                raise WorkspaceError(self._moved(alias, held, expected))
            version.read_manifest()
            if alias == aliases.PRODUCTION and version.number > 0:
                self._need_approval(connection, version, policy)
            aliases.move(connection, alias, version.id, kind="promote", actor=actor, policy=policy or None)

    def rollback(self, alias: str, *, actor: str) -> Version:
        """Give an alias back what it held before, every stored byte of that verified first; the version.

        Repeated rollbacks walk back through the history. Versions rejected since are passed over.

        Raises:
            WorkspaceError: The alias held nothing before.
            IntegrityError: The earlier version is damaged; the alias stays.
        """
        actor, alias = checked_actor(actor), aliases.checked_alias(alias)
        with self._writing("rollback", actor):
            target = self._by_id(aliases.rollback_target(self._database.connection(), alias))
            self.side_files(target)
            self.pool_files(target)
            self.tensors(target)
            reach(Point.ROLLBACK_TARGET_VERIFIED)
            with self._database.transaction() as connection:
                aliases.move(connection, alias, target.id, kind="rollback", actor=actor, policy=None)
        return target

    @translated("reading the aliases")
    def aliases(self) -> dict[str, Version]:
        """What each alias holds now."""
        heads = aliases.heads(self._checked())
        return {alias: self._by_id(held) for alias, held in sorted(heads.items())}

    @translated("reading the aliases")
    def alias_history(self, alias: str) -> list[AliasMove]:
        """Every move of an alias, oldest first."""
        return aliases.moves(self._checked(), alias)

    def _moved(self, alias: str, held: str | None, expected: Version | Literal["any"] | None) -> str:
        now = self._by_id(held).name if held else "nothing"
        thought = expected.name if isinstance(expected, Version) else "nothing"
        return f"{alias!r} holds {now}, not {thought} as expected: it was moved meanwhile. Look at it and repeat"

    def _need_approval(self, connection: sqlite3.Connection, version: Version, policy: str) -> None:
        if decisions.valid_approval(connection, version.id, policy) is None:
            raise RefusedError(
                f"{version.name} has no valid approval over its latest report under this policy "
                f"(it is {version.status}), so production stays as it is. Have somebody other than "
                f"{version.requester} approve it"
            )

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
            ledger.append(connection, _words(action), details, actor)

    @translated("reading the ledger")
    def log(self, limit: int | None = None) -> list[LedgerEntry]:
        """The ledger, oldest first; with a limit, only its newest so many rows."""
        return ledger.entries(self._database.connection(), limit)

    def verify(self, *, deep: bool = True, head: str | None = None) -> Verification:
        """Check the whole workspace; everything wrong with it, in plain words.

        Args:
            deep: Read every byte of every object; otherwise only presence and sizes.
            head: The hash of a ledger row noted earlier outside the workspace (`Verification.head`); a
                ledger that was cut or rewritten no longer has it.
        """
        return verify.check_workspace(self._store, self._database, deep=deep, head=head)

    def collect_garbage(self) -> GarbageReport:
        """Move files that no version, report or approval needs to the quarantine folder.

        Raises:
            IntegrityError: A manifest cannot be read, so what is needed is not known; nothing was moved.
        """
        with self._writing("collect garbage", "perdure"):
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


def _words(text: str) -> str:
    """The text, if UTF-8 can say it."""
    return str(plain_json({"text": text})["text"])
