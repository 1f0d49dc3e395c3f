"""A version as an ordinary model folder, written whole or not at all."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from perdure.content import sync_folder
from perdure.errors import WorkspaceError
from perdure.workspace.database import DiskError, DiskFullError
from perdure.workspace.encodings import DTYPES
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.manifest import Manifest

SHARD_BYTES = 5 * 10**9
Read = Callable[[list[str]], dict[str, Tensor]]


def write_folder(folder: Path, manifest: Manifest, files: Mapping[str, bytes], read: Read) -> None:
    """Write a folder that `from_pretrained` loads.

    Args:
        folder: Where to; missing or empty.
        manifest: The version's tensors.
        files: The side files' contents by name, the names already checked.
        read: Gives tensors by name, verified; asked for one shard at a time.

    Raises:
        WorkspaceError: The folder is not empty, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link at the end must stay visible
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise WorkspaceError(f"{folder} exists and is not an empty folder; name a new one")
    with _beside(folder) as scratch:
        reach(Point.CHECKOUT_FOLDER_MADE)
        for name, data in files.items():
            _write_synced(scratch / name, data)
        reach(Point.CHECKOUT_FILES_WRITTEN)
        _write_weights(scratch, manifest, read)
        reach(Point.CHECKOUT_WEIGHTS_WRITTEN)
        sync_folder(scratch)
        try:
            scratch.rename(folder)
        except OSError as error:
            raise WorkspaceError(f"{folder} was made by somebody else meanwhile: {error}") from error
        reach(Point.CHECKOUT_RENAMED)
        sync_folder(folder.parent)


def _write_weights(folder: Path, manifest: Manifest, read: Read) -> None:
    blank = {
        name: torch.empty(record.shape, dtype=DTYPES[record.dtype], device="meta")
        for name, record in manifest.tensors.items()
    }
    plan = split_torch_state_dict_into_shards(blank, max_shard_size=SHARD_BYTES)
    for file, names in plan.filename_to_tensors.items():
        _save(read(names), folder / file)
    if len(plan.filename_to_tensors) > 1:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        _write_synced(folder / "model.safetensors.index.json", json.dumps(index, indent=2).encode())


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if "os error 28" in str(error):
            raise DiskFullError(f"writing {path.name}: the disk is full; free some space and repeat") from error
        raise DiskError(f"{path.name} cannot be written: {error}") from error
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, locked while in use; those that crashes left are removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{_escaped(folder.name)}.*.tmp"):
        _remove_if_free(leftover)
    scratch = folder.parent / f".{folder.name}.{secrets.token_hex(6)}.tmp"
    scratch.mkdir()
    handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
    finally:
        os.close(handle)
        if scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _remove_if_free(leftover: Path) -> None:
    with suppress(OSError):
        handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
