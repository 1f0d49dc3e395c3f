"""A delta on a checkpoint that need not fit in memory: folder to folder, a few rows of one tensor at a time."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from perdure.content import digest_tensor, fresh_folder, tensor_bytes, tensor_hasher, write_synced
from perdure.deltas.delta import Change, Delta, changed, row_length
from perdure.deltas.exported import BaseTensor, ExportedDelta, Rows
from perdure.errors import EditError, IntegrityError, ModelError
from perdure.models.checkpoint import INDEX, Checkpoint, TensorEntry
from perdure.models.tensor_files import PIECE_BYTES, Place, pieces, places
from perdure.progress import Progress, counting, silent


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        tensors: Tensors written.
        changed: Those that the delta changed.
        checked: Whether every tensor was checked against the hashes that came with the delta.
    """

    tensors: int
    changed: int
    checked: bool


def apply_to_folder(source: Path, delta: "Delta | ExportedDelta", out: Path, *, progress: Progress = silent) -> Applied:
    """A new model folder: the checkpoint in `source` plus a delta; names, shards and dtypes stay as they are.

    Weights are read, summed and written in pieces of 8 MiB or one row, and factors one tensor at a time, so
    memory does not grow with the checkpoint. `out` is there whole or not at all. With an exported delta every
    tensor of the base is checked by its hash before anything counts, and every changed one after.

    Args:
        source: A model folder with safetensors.
        delta: A delta, or an exported one.
        out: The new folder.
        progress: Told how many tensors are written.

    Raises:
        ModelError: The checkpoint is damaged or not the one that the delta was made for.
        IntegrityError: The delta is damaged: its result has another hash.
        EditError: A sum overflows the tensor's dtype.
        SettingError: `out` exists.
    """
    checkpoint = Checkpoint.open(source)
    plan = _plan_exported(checkpoint, delta) if isinstance(delta, ExportedDelta) else _plan(checkpoint, delta)
    count = counting(progress, "writing tensors", len(checkpoint.entries))
    with fresh_folder(out) as scratch:
        for file in (*checkpoint.side_files, *_index(checkpoint)):
            write_synced(scratch / file.name, file.read_bytes())
        for shard in checkpoint.shards:
            _write_shard(shard, scratch / shard.name, checkpoint.entries, plan, count)
    return Applied(len(checkpoint.entries), len(plan.rows), bool(plan.base))


@dataclass(frozen=True)
class _Plan:
    """What happens to each tensor, under the names of the checkpoint.

    Attributes:
        rows: How to get the change of the rows of each changed tensor; called when its turn comes.
        base: The hashes that the checkpoint's tensors must have, where known.
        result: The hashes that the changed ones must get, where known.
    """

    rows: Mapping[str, Callable[[], Rows]]
    base: Mapping[str, str]
    result: Mapping[str, str]


def _plan(checkpoint: Checkpoint, delta: Delta) -> _Plan:
    stored = _stored_names(checkpoint, delta.changes)
    _refuse_missing(checkpoint, delta.changes, stored)
    for name, change in delta.changes.items():
        shape = checkpoint.entries[stored[name]].shape
        if tuple(change.shape) != shape:
            raise ModelError(
                f"the delta's change of {name} has shape {list(change.shape)}, the tensor {list(shape)}: "
                "the delta is of another model"
            )

    def rows(change: Change) -> Callable[[], Rows]:
        return lambda: lambda weight, start: changed(weight, change.rows(start, start + len(weight)))

    return _Plan({stored[name]: rows(change) for name, change in delta.changes.items()}, {}, {})


def _plan_exported(checkpoint: Checkpoint, delta: ExportedDelta) -> _Plan:
    contents = delta.contents
    stored = _stored_names(checkpoint, contents.base)
    stored |= _renamed(checkpoint, contents.base, stored)
    _refuse_missing(checkpoint, contents.base, stored)
    for name, tensor in contents.base.items():
        _check_kind(name, checkpoint.entries[stored[name]], tensor)

    def rows(name: str) -> Callable[[], Rows]:
        return lambda: delta.rows(name)

    return _Plan(
        {stored[name]: rows(name) for name in contents.changes},
        {stored[name]: tensor.hash for name, tensor in contents.base.items()},
        {stored[name]: change.hash for name, change in contents.changes.items()},
    )


def _check_kind(name: str, found: TensorEntry, wanted: BaseTensor) -> None:
    dtype = str(found.dtype).removeprefix("torch.")
    if (dtype, found.shape) != (wanted.dtype, wanted.shape):
        raise ModelError(
            f"{name} is {dtype} {list(found.shape)} here and {wanted.dtype} {list(wanted.shape)} in the base that "
            "the delta was made for; give that base, in that dtype"
        )


def _stored_names(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, str]:
    """From the names of a running model to those in the checkpoint, as far as they are there.

    Some checkpoints leave out the name of the part that holds the decoder ("transformer." of GPT-2).
    """
    wanted = list(names)
    missing = [name for name in wanted if name not in checkpoint.entries]
    for prefix in dict.fromkeys(name.partition(".")[0] + "." for name in missing):
        short = {name: name.removeprefix(prefix) for name in missing if name.startswith(prefix)}
        if set(short.values()) <= checkpoint.entries.keys() and not set(short.values()) & set(wanted):
            return {name: short.get(name, name) for name in wanted if name in short or name in checkpoint.entries}
    return {name: name for name in wanted if name in checkpoint.entries}


def _renamed(checkpoint: Checkpoint, base: Mapping[str, BaseTensor], stored: dict[str, str]) -> dict[str, str]:
    """The base's tensors that the checkpoint holds under another name (NeoX's head), told by their hashes."""
    lost = {tensor.hash: name for name, tensor in base.items() if name not in stored}
    over = checkpoint.entries.keys() - set(stored.values()) if lost else set()
    hashes = {digest_tensor(checkpoint.tensor(name)): name for name in sorted(over)}
    return {name: hashes[wanted] for wanted, name in lost.items() if wanted in hashes}


def _refuse_missing(checkpoint: Checkpoint, names: Iterable[str], stored: Mapping[str, str]) -> None:
    lost = [name for name in names if name not in stored]
    if lost:
        raise ModelError(f"{checkpoint.folder} has no tensor {lost[0]!r}: the delta is of another model")


def _index(checkpoint: Checkpoint) -> list[Path]:
    index = checkpoint.folder / INDEX
    return [index] if index.is_file() else []


def _write_shard(
    source: Path, target: Path, entries: Mapping[str, TensorEntry], plan: _Plan, count: Callable[[int], None]
) -> None:
    """Copy a shard, header and all, with the changed tensors in their places."""
    found = places(source)
    with source.open("rb") as stream, target.open("xb") as out:
        for piece in pieces(stream, found[0].start if found else source.stat().st_size):
            out.write(piece)
        for place in found:
            _write_tensor(stream, out, place, entries[place.name], plan)
            count(1)
        out.flush()
        os.fsync(out.fileno())


def _write_tensor(stream: BinaryIO, out: BinaryIO, place: Place, entry: TensorEntry, plan: _Plan) -> None:
    name = place.name
    before, after = tensor_hasher(entry.dtype, entry.shape), tensor_hasher(entry.dtype, entry.shape)
    change = plan.rows[name]() if name in plan.rows else None
    columns = row_length(entry.shape)
    row_bytes = columns * entry.dtype.itemsize
    done = 0
    for piece in pieces(stream, place.stop - place.start, max(1, PIECE_BYTES // row_bytes) * row_bytes):
        if name in plan.base:
            before.update(piece)
        data: bytearray | memoryview = piece
        if change is not None:
            rows = torch.frombuffer(piece, dtype=entry.dtype).view(-1, columns)
            data = _changed_piece(name, rows, done, change)
            after.update(data)
            done += len(rows)
        out.write(data)
    if plan.base.get(name) not in (None, before.hexdigest()):
        raise ModelError(
            f"{name} is not the tensor that the delta was made for: its numbers have another hash. "
            "Give the base that the version was made from"
        )
    if plan.result.get(name) not in (None, after.hexdigest()):
        raise IntegrityError(f"{name} did not become the version's tensor: the delta is damaged; export it again")


def _changed_piece(name: str, rows: Tensor, first: int, change: Rows) -> memoryview:
    new = change(rows, first)
    if new.numel() and not all(torch.isfinite(bound) for bound in torch.aminmax(new)):
        raise EditError(f"{name}: the change overflows {str(rows.dtype).removeprefix('torch.')}; restrain it")
    return tensor_bytes(new)
