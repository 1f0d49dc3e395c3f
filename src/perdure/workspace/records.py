"""What the archive hands out: versions and reports about storage."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from perdure.workspace.manifest import Manifest

BASE, CANDIDATE, APPROVED, REJECTED = "base", "candidate", "approved", "rejected"


@dataclass(frozen=True)
class Version:
    """One immutable state of the model.

    Attributes:
        number: Its place in the workspace, from 0 (the base).
        id: sha256 of its manifest.
        parent: The id of the version that it was made from; None for the base.
        requester: Who asked for it.
        created: UTC, ISO 8601.
        status: "base", "candidate", "approved" (under some policy, over its latest report) or "rejected",
            when it was fetched.
    """

    number: int
    id: str
    parent: str | None
    requester: str
    created: str
    status: str = field(compare=False)
    read_manifest: Callable[[], Manifest] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """What people call it, for example "v3"."""
        return f"v{self.number}"

    @cached_property
    def manifest(self) -> Manifest:
        """Its contents, read and checked against the id when first asked for.

        Raises:
            IntegrityError: The manifest is missing or damaged.
        """
        return self.read_manifest()


@dataclass(frozen=True)
class StorageReport:
    """What a version costs on disk.

    Attributes:
        added_bytes: What storing it added: tensors, delta, manifest, files.
        model_bytes: The size of all its tensors.
    """

    added_bytes: int
    model_bytes: int

    @property
    def ratio(self) -> float:
        """How many times smaller the version is than a full copy."""
        return self.model_bytes / max(1, self.added_bytes)


@dataclass(frozen=True)
class GarbageReport:
    """What the collection of garbage moved to quarantine.

    Attributes:
        quarantined: The names of the moved files.
        bytes: Their size together.
        kept: How many objects and packs are in use.
    """

    quarantined: tuple[str, ...]
    bytes: int
    kept: int


@dataclass(frozen=True)
class Verification:
    """What a check of the whole workspace found.

    Attributes:
        problems: Everything wrong, in plain words.
        versions: How many versions were checked.
        objects: How many loose objects and packed tensors were checked.
        ledger_rows: How many rows the ledger has.
        pools: How many versions' pools of adapters were checked: that each adapter is the one that the router names.
        unlisted: Files among the objects that no version uses: left-overs of crashes, harmless.
        deep: Whether every byte was read.
        head: The hash of the last ledger row, to be noted outside the workspace.
    """

    problems: tuple[str, ...]
    versions: int
    objects: int
    ledger_rows: int
    pools: int
    unlisted: int
    deep: bool
    head: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems
