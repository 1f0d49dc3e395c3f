"""The part of an archive that knows every fact and task: who asked, when, where it lives, whether it still holds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from perdure.errors import IntegrityError, UnknownNameError
from perdure.workspace import aliases, taught
from perdure.workspace.database import translated
from perdure.workspace.observing import Observing
from perdure.workspace.records import Version
from perdure.workspace.taught import Answered, Copy, StaleError, Taught
from perdure.workspace.teachings import Answer, Found, Lineage, Teaching

_Result = TypeVar("_Result")
_PART = 200  # sources that are copied in one transaction
_SHORTEST = 4


class Lineages(Observing):
    """Facts and tasks across versions."""

    @translated("searching the facts")
    def search(self, text: str, limit: int = 50) -> list[Found]:
        """Facts and tasks that hold every word of the text, the newest first, each once.

        Raises:
            IntegrityError: Something stored is damaged.
        """
        return self._copied(lambda: self._search(text, limit))

    @translated("reading a fact's lineage")
    def lineage_of(self, name: str) -> Lineage:
        """Everything about one fact or task.

        Args:
            name: Its id, or the first four or more digits.

        Raises:
            UnknownNameError: None has it, or several.
            IntegrityError: Something stored is damaged.
        """
        return self._copied(lambda: self._lineage_of(name.casefold()))

    def _search(self, text: str, limit: int) -> list[Found]:
        connection = self._database.connection()
        known = {version.id: version for version in self.versions()}
        found = taught.with_words(connection, text, 10 * limit)
        rows: dict[str, Taught] = {}
        for row in sorted(found, key=lambda row: (-known[row.version].number, row.place)):
            rows.setdefault(row.id, row)
        newest = list(rows.values())[:limit]
        said = taught.answers(connection, [row.id for row in newest])
        return [_found(row, known[row.version], said[row.id]) for row in newest]

    def _lineage_of(self, name: str) -> Lineage:
        connection = self._database.connection()
        rows = taught.with_id(connection, name) if len(name) >= _SHORTEST else []
        ids = sorted({row.id for row in rows})
        if len(ids) != 1:
            near = [row.id[:12] for row in rows]
            raise UnknownNameError("fact or task", name, near)
        versions = self.versions()
        related = taught.with_prompt(connection, rows[0].asked)
        living = _living(versions, related, ids[0])
        known = {version.id: version for version in versions}
        said = taught.answers(connection, ids)[ids[0]]
        heads = aliases.heads(connection)
        return Lineage(
            id=ids[0],
            kind=rows[0].kind if rows[0].kind != taught.REMOVED else taught.FACT,
            shown=rows[-1].shown,
            taught=tuple(_teaching(row, known) for row in rows if row.kind != taught.REMOVED),
            removed=tuple(_teaching(row, known) for row in rows if row.kind == taught.REMOVED),
            lives_in=tuple(version.name for version in living),
            served_by=tuple(sorted(alias for alias, held in heads.items() if held in {v.id for v in living})),
            conflicts=tuple(
                _teaching(row, known)
                for row in related
                if row.id != ids[0] and row.kind == taught.FACT and rows[0].kind != taught.TASK
            ),
            answers=tuple(Answer(known[one.version].name, one.hits, one.n) for one in said),
        )

    def _copied(self, read: Callable[[], _Result]) -> _Result:
        """What `read` gives once everything is copied; copied anew where a row is damaged."""
        self._checked()
        self._copy()
        try:
            return read()
        except StaleError:
            with self._database.transaction() as connection:
                taught.empty(connection)
            self._copy()
            try:
                return read()
            except StaleError as error:
                raise IntegrityError("what was taught cannot be copied for searching; run verify") from error

    def _copy(self) -> None:
        """Copy what is not copied yet: read first, then written part by part."""
        connection = self._database.connection()
        versions, reports = taught.missing_versions(connection), taught.missing_reports(connection)
        if not versions and not reports:
            return
        known = {version.id: version for version in self._find()}
        reads: list[Callable[[], Copy]] = [partial(self._copy_of_version, known[name]) for name in versions]
        reads += [partial(self._copy_of_report, known[row[1]], row[0], row[2]) for row in reports]
        for start in range(0, len(reads), _PART):
            found = [read() for read in reads[start : start + _PART]]
            with self._database.transaction() as writing:
                for copy in found:
                    taught.write(writing, copy)

    def _copy_of_version(self, version: Version) -> Copy:
        return Copy(version.id, taught=taught.taught_in(version.id, self.notes(version)))

    def _copy_of_report(self, version: Version, report: int, digest: str) -> Copy:
        data = self._read_report(version, digest)
        return Copy(taught.report_source(report), answered=taught.answered_in(report, version.id, data))


def _found(row: Taught, version: Version, said: Sequence[Answered]) -> Found:
    return Found(row.id, row.kind, row.shown, version.name, version.requester, version.created, _holds(said))


def _holds(said: Sequence[Answered]) -> bool | None:
    return None if not said else said[-1].hits == said[-1].n


def _teaching(row: Taught, known: dict[str, Version]) -> Teaching:
    version = known[row.version]
    return Teaching(row.id, row.shown, version.name, version.requester, version.created)


def _living(versions: Sequence[Version], related: Sequence[Taught], name: str) -> list[Version]:
    """The versions in which a fact is in force: taught there or below, and not overwritten since."""
    last: dict[str, str] = {}
    for row in related:  # in the order of places: of those with one prompt the last is in force
        if row.kind != taught.REMOVED:
            last[row.version] = row.id
    held: dict[str | None, str | None] = {None: None}
    for version in versions:  # parents come before their children
        held[version.id] = last.get(version.id, held.get(version.parent))
    return [version for version in versions if held[version.id] == name]
