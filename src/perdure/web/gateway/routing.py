"""Which version answers: an alias as it stands at this moment, split between two versions while a canary runs."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perdure.errors import RefusedError, UnknownNameError
from perdure.web.gateway.splitting import candidate_answers
from perdure.workspace.archive import Archive
from perdure.workspace.records import APPROVED, BASE, REJECTED, Version
from perdure.workspace.releases import Canary
from perdure.workspace.watching import Watch


@dataclass(frozen=True)
class Chosen:
    """Who answers a request.

    Attributes:
        version: The version.
        alias: The alias that was asked for; None where a version was named.
        canary: The number of the alias's canary; None without one.
    """

    version: Version
    alias: str | None = None
    canary: int | None = None


@dataclass(frozen=True)
class Table:
    """What the workspace says about names at one moment.

    Attributes:
        heads: What each alias holds.
        canaries: The running canary of each alias that has one.
        versions: Every version by its id.
        rejected: The ids of versions that were rejected, or that stand on one.
    """

    heads: Mapping[str, Version]
    canaries: Mapping[str, Canary]
    versions: Mapping[str, Version]
    rejected: frozenset[str]

    @classmethod
    def read(cls, archive: Archive) -> "Table":
        """The table of a workspace."""
        versions = {version.id: version for version in archive.versions()}
        rejected: set[str] = set()
        for version in versions.values():  # oldest first: a parent before its children
            if version.status == REJECTED or version.parent in rejected:
                rejected.add(version.id)
        running = {canary.alias: canary for canary in archive.canaries() if canary.running}
        return cls(archive.aliases(), running, versions, frozenset(rejected))

    def find(self, name: str) -> Version:
        """The version with this name or whole id."""
        found = [version for version in self.versions.values() if name in (version.name, version.id)]
        if not found:
            raise UnknownNameError("model", name, [*self.heads, *(version.name for version in self.versions.values())])
        return found[0]


class Routing:
    """From the names that clients give to versions; a change of the workspace counts from the next request on.

    Args:
        archive: The workspace's.
        unapproved: Whether candidates are answered for by name.
        draw: Gives a number in [0, 1) for a request that belongs to no named conversation.
    """

    def __init__(self, archive: Archive, *, unapproved: bool, draw: Callable[[], float]) -> None:
        self._archive, self._unapproved, self._draw = archive, unapproved, draw
        self._watch = Watch(archive.folder)
        self._lock = threading.Lock()
        self._table: Table | None = None
        self._halted: frozenset[int] = frozenset()

    def table(self) -> Table:
        """What the workspace says now."""
        with self._lock:
            if self._watch.moved():
                self._table = None
            if self._table is None:
                self._table = Table.read(self._archive)
            return self._table

    def choose(self, name: str, conversation: str | None = None) -> Chosen:
        """Who answers a request.

        Args:
            name: An alias, or the name or id of a version.
            conversation: What the request belongs to; requests of one stay on one version.

        Raises:
            UnknownNameError: Nothing has that name.
            RefusedError: The version was rejected, or nobody approved it.
        """
        table = self.table()
        held = table.heads.get(name)
        if held is None:
            return Chosen(self._permitted(table, table.find(name)))
        canary = table.canaries.get(name)
        if canary is None:
            return Chosen(held, name)
        chosen = canary.candidate if self._candidate_answers(canary, conversation) else canary.stable
        return Chosen(table.versions[chosen], name, canary.number)

    def served(self) -> list[tuple[str, Version]]:
        """Every name that is answered for, with its version: aliases first."""
        table = self.table()
        named = [(version.name, version) for version in table.versions.values() if self._permits(table, version)]
        return [*table.heads.items(), *named]

    def halt(self, canary: int) -> None:
        """Let the candidate of a canary answer nobody any more, whatever the workspace says."""
        self._halted |= {canary}

    def close(self) -> None:
        """Let go of the workspace's database."""
        self._watch.close()

    def _candidate_answers(self, canary: Canary, conversation: str | None) -> bool:
        if canary.number in self._halted:
            return False
        if conversation is None:
            return self._draw() < canary.weight
        return candidate_answers(canary.number, conversation, canary.weight)

    def _permits(self, table: Table, version: Version) -> bool:
        if version.id in {held.id for held in table.heads.values()}:
            return True
        return version.id not in table.rejected and (self._unapproved or version.status in (BASE, APPROVED))

    def _permitted(self, table: Table, version: Version) -> Version:
        if not self._permits(table, version):
            why = "was rejected" if version.id in table.rejected else "is not approved"
            raise RefusedError(f"{version.name} {why}, so it answers no requests; ask for an alias")
        return version
