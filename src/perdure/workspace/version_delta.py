"""The change of a version as a file of its own, for a copy of the base that lies somewhere else."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from perdure.deltas.exported import BaseTensor, TensorChange, write_exported
from perdure.deltas.exported import Contents as Header
from perdure.errors import SettingError
from perdure.models.tensor_files import Blank
from perdure.workspace.encodings import DTYPES
from perdure.workspace.manifest import TensorRecord
from perdure.workspace.objects import ObjectStore, TensorReader
from perdure.workspace.records import Version

_WORTHWHILE = 2  # factors are exported where they are at most half the tensor


@dataclass(frozen=True)
class _Way:
    """How one tensor of the base becomes the version's.

    Attributes:
        record: The version's tensor.
        objects: The hashes along the chain of low-rank sums, from the base on; empty to take the tensor itself.
        blanks: The factors or the tensor that the file will hold.
    """

    record: TensorRecord
    objects: tuple[str, ...]
    blanks: tuple[Blank, ...]


def write_version_delta(store: ObjectStore, version: Version, base: Version, path: Path) -> None:
    """Write what turns the base's tensors into the version's, with the hashes of both; `ExportedDelta` opens it.

    Raises:
        IntegrityError: Something stored is damaged.
        SettingError: The version has tensors that the base does not have.
    """
    before, after = base.manifest.tensors, version.manifest.tensors
    added = sorted(set(after) - set(before))
    if added:
        raise SettingError(
            f"{version.name} has {len(added)} tensors that {base.name} lacks, such as {added[0]}: a vector was put "
            "into its weights. Export it as a folder instead"
        )
    ways = {name: _way(store, after[name], before[name]) for name in sorted(after) if after[name] != before[name]}
    header = Header(
        base={name: BaseTensor(**record.model_dump()) for name, record in before.items()},
        changes={name: TensorChange(steps=len(way.objects), hash=way.record.hash) for name, way in ways.items()},
        notes={"version": version.id, "name": version.name, "base": base.id},
    )

    def read(name: str, place: int) -> Tensor:
        way, reader = ways[name], TensorReader(store)
        if not way.objects:
            return reader.tensor(way.record.hash)
        factors = reader.factors(way.objects[place // 2])
        assert factors is not None
        return factors.low_rank.right if place % 2 else factors.low_rank.left

    write_exported(path, header, {name: way.blanks for name, way in ways.items()}, read)


def _way(store: ObjectStore, record: TensorRecord, base: TensorRecord) -> _Way:
    """The chain of low-rank sums from the base to the tensor, if it is one and is worth it."""
    whole = Blank(DTYPES[record.dtype], record.shape)
    objects: list[str] = []
    blanks: list[Blank] = []
    at = record.hash
    while at != base.hash:
        factors = TensorReader(store).factors(at)
        if factors is None:
            return _Way(record, (), (whole,))
        pair = factors.low_rank.left, factors.low_rank.right
        objects.insert(0, at)
        blanks[:0] = [Blank(part.dtype, tuple(part.shape)) for part in pair]
        at = factors.reference
    if sum(blank.nbytes for blank in blanks) > whole.nbytes // _WORTHWHILE:
        return _Way(record, (), (whole,))
    return _Way(record, tuple(objects), tuple(blanks))
