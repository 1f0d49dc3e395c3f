"""A version's pool as a folder: flat names in the manifest, folders where the pool is read, changed or exported."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.content import write_synced

if TYPE_CHECKING:
    from perdure.tuning.pool import Pool

POOL = "pool"
_ROUTER = f"{POOL}.router.json"


def flat_name(path: str) -> str:
    """The name in the manifest of a file of a pool: `g1/<hash>/adapter_config.json` is `pool.g1.<hash>.adapter_…`."""
    return f"{POOL}.{path.replace('/', '.')}"


def lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a pool, their names already checked, to an empty folder, as `Pool.open` expects them."""
    for name, data in files.items():
        path = folder / "router.json" if name == _ROUTER else folder.joinpath(*name.split(".", 3)[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(path, data)


def check_pool(files: Mapping[str, str], read: Callable[[str], bytes], known: set[str]) -> None:
    """Check that every adapter of a pool is the one that its router names.

    Args:
        files: By their names in the manifest, the hashes of its files.
        read: The bytes of a hash.
        known: Digests of adapters that were found whole before; those found now are added.

    Raises:
        IntegrityError: An adapter, or the router, is not what was put there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lay_out({name: read(hash) for name, hash in files.items() if name == _ROUTER}, folder)
        pool = _opened(folder)
        new = tuple(flat_name(f"{version.folder}/") for version in pool.kept if version.digest not in known)
        lay_out({name: read(hash) for name, hash in files.items() if name.startswith(new)}, folder)
        pool.verify(known)
        known.update(version.digest for version in pool.kept)


def export_pool(files: Mapping[str, bytes], target: Path) -> None:
    """Write the adapters in use as PEFT folders, one for each group, with `router.json`.

    Raises:
        IntegrityError: An adapter is not the one that the router names.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        lay_out(files, Path(scratch))
        _opened(Path(scratch)).export(target)


def _opened(folder: Path) -> "Pool":
    """The pool in a folder, its encoder left alone: nothing is routed."""
    from perdure.tuning.pool import Pool  # it takes scikit-learn, which most commands do without
    from perdure.tuning.pool_files import read_state
    from perdure.tuning.similarity import Later

    return Pool.open(folder, Later(read_state(folder).groups.encoder))
