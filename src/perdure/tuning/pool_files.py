"""The pool on disk: `router.json`, and a folder of two files for each version of a group's adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perdure.content import digest_file, digest_json, fresh_folder, write_atomic, write_synced
from perdure.deltas.adapter_files import CONFIG, WEIGHTS
from perdure.errors import IntegrityError, UnsafeFileError
from perdure.tuning.grouping import GroupsState
from perdure.tuning.routing import RoutingConfig

ROUTER = "router.json"
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Version(BaseModel):
    """One version of a group's adapter."""

    model_config = _FROZEN

    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 over its two files")
    folder: str = Field(pattern=r"^g[1-9][0-9]*(/[0-9a-f]{16})?$", description="where it lies in the pool")
    parent: int | None = Field(default=None, ge=0, description="the version that it came after; none: the first")
    tasks: tuple[str, ...] = Field(description="the tasks that it was trained for")
    parameters: int = Field(ge=0, description="numbers in its factors")
    size: int = Field(ge=0, description="bytes of its two files")
    note: str = Field(default="", description="why it was made")


class Versions(BaseModel):
    """All versions of a group's adapter, and the one in use."""

    model_config = _FROZEN

    versions: tuple[Version, ...] = Field(default=(), description="in the order of their making")
    current: int | None = Field(default=None, ge=0, description="the one in use; none: the base answers")

    @model_validator(mode="after")
    def _fits(self) -> "Versions":
        parents = [(place, version.parent) for place, version in enumerate(self.versions)]
        astray = any(parent is not None and parent >= place for place, parent in parents)
        if astray or (self.current is not None and self.current >= len(self.versions)):
            raise ValueError("a version that is not there is named")
        return self


class PoolState(BaseModel):
    """What stands in `router.json`."""

    model_config = _FROZEN

    format: Literal[1] = 1
    base: str = Field(description="what the adapters name as their base")
    base_parameters: int = Field(ge=1, description="its parameters")
    routing: RoutingConfig = RoutingConfig()
    threshold: float = Field(ge=-1, le=1, description="the similarity from which a group answers")
    groups: GroupsState
    adapters: dict[str, Versions] = Field(default_factory=dict, description="by group")
    log: tuple[str, ...] = Field(default=(), description="every change of a version in words")


def read_state(folder: Path) -> PoolState:
    """The state of the pool in a folder.

    Raises:
        IntegrityError: No pool, or a damaged one.
    """
    try:
        return PoolState.model_validate_json((folder / ROUTER).read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{folder} holds no readable pool: {error}") from error


def write_state(folder: Path, state: PoolState) -> None:
    """Write `router.json`, whole or not at all."""
    write_atomic(folder / ROUTER, (state.model_dump_json(indent=1) + "\n").encode())


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write an adapter's folder, whole or not at all; one that is there with this content stays."""
    if folder.is_dir() and {path.name: path.read_bytes() for path in folder.iterdir()} == dict(files):
        return
    with fresh_folder(folder) as scratch:
        for name, data in files.items():
            write_synced(scratch / name, data)


def checked_folder(pool: Path, version: Version) -> Path:
    """The folder of a version, with the very files that were written.

    Raises:
        UnsafeFileError: Another file lies there, or a link: only two plain files are read.
        IntegrityError: A file is missing or changed.
    """
    folder = pool / version.folder
    above = [folder, *list(folder.parents)[: version.folder.count("/")]]
    if any(path.is_symlink() for path in above):
        raise UnsafeFileError(f"{folder} is reached through a link, which may lead out of the pool, and is refused")
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    odd = [path.name for path in found if path.name not in (CONFIG, WEIGHTS) or path.is_symlink()]
    if odd:
        raise UnsafeFileError(f"{folder} holds {odd[0]}; an adapter of the pool is {CONFIG} and {WEIGHTS}, no link")
    digests = {path.name: digest_file(path) for path in found}
    if len(found) != 2 or digest_json(digests) != version.digest:
        raise IntegrityError(f"the adapter in {folder} is not the one that was put there; restore it from a copy")
    return folder
