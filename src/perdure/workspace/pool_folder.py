"""A version's pool as a folder: flat names in the manifest, folders where the pool is read, changed or exported."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from perdure.content import write_synced

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


def export_pool(files: Mapping[str, bytes], target: Path) -> None:
    """Write the adapters in use as PEFT folders, one for each group, with `router.json`.

    Raises:
        IntegrityError: An adapter is not the one that the router names.
    """
    from perdure.tuning.pool import Pool  # it takes scikit-learn, which most commands do without
    from perdure.tuning.pool_files import read_state
    from perdure.tuning.similarity import Later

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        lay_out(files, Path(scratch))
        Pool.open(Path(scratch), Later(read_state(Path(scratch)).groups.encoder)).export(target)
