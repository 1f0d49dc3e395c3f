"""Content and its name: canonical JSON, hashes of tensors and files, files and folders written whole or not at all.

The identity of a tensor is the sha256 over its dtype, shape and bytes; the identity of a document
is the sha256 of its canonical JSON. Everything cached or stored in perdure is found by one of these.
"""

import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import SettingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CHUNK = 1 << 22


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, no NaN or infinity.

    Raises:
        SettingError: The value holds something that JSON cannot say.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingError(f"cannot be written as canonical JSON: {error}") from error


def digest_json(value: Any) -> str:
    """The sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_bytes(data: bytes) -> str:
    """The sha256 (hex) of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """The sha256 (hex) of a file, read in chunks."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """The raw little-endian bytes of a tensor, row-major, without a copy where possible."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data).cast("B")


def tensor_hasher(dtype: "torch.dtype", shape: Sequence[int]) -> "hashlib._Hash":
    """The hash that gives a tensor's identity once it was fed all of the tensor's bytes."""
    name = str(dtype).removeprefix("torch.")
    return hashlib.sha256(f"{name}{list(shape)}\n".encode())


def digest_tensor(tensor: "Tensor") -> str:
    """The identity of a tensor: sha256 (hex) over dtype, shape and bytes."""
    found = tensor_hasher(tensor.dtype, tensor.shape)
    if tensor.numel():
        found.update(tensor_bytes(tensor))
    return found.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the final name, synced, when the block ends.

    After a crash at any moment the final name holds either the old content or the whole new one.
    Left-over temporary files start with a dot and end in `.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        yield scratch
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        scratch.replace(path)
        sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the whole new one."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(data)


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; it takes the final name, synced, when the block ends.

    After a crash at any moment the final name holds the whole folder or none. What crashed writers left is
    removed by the next one; those of living writers are locked and stay.

    Raises:
        SettingError: `folder` is there and not empty, or was made by somebody else meanwhile.
    """
    final = Path(os.path.abspath(folder))  # noqa: PTH100 - a link at the end must stay visible
    if final.is_symlink() or (final.exists() and (not final.is_dir() or any(final.iterdir()))):
        raise SettingError(f"{folder} exists and is not an empty folder; name a new one")
    with _locked_scratch(final) as scratch:
        yield scratch
        sync_folder(scratch)
        try:
            scratch.rename(final)
        except OSError as error:
            raise SettingError(f"{folder} was made by somebody else meanwhile: {error}") from error
        sync_folder(final.parent)


@contextmanager
def _locked_scratch(final: Path) -> Iterator[Path]:
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{glob.escape(final.name)}.*.tmp"):
        remove_if_free(leftover)
    scratch = final.parent / f".{final.name}.{secrets.token_hex(6)}.tmp"
    scratch.mkdir()
    handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
    finally:
        os.close(handle)
        if scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def scratch_folder(inside: Path) -> Iterator[Path]:
    """A temporary folder that is gone when the block ends; until then it is locked, and `remove_if_free` leaves it."""
    with tempfile.TemporaryDirectory(dir=inside) as name:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(handle)


def remove_if_free(leftover: Path) -> None:
    """Remove a folder, unless somebody who is alive has it locked."""
    with suppress(OSError):
        handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write `data` to the new file `path` and sync it: for files of a folder that is not yet in place."""
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Where fetched models and computed statistics are kept: `$PERDURE_CACHE`, else the user's cache."""
    chosen = os.environ.get("PERDURE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen).expanduser() if chosen else base / "perdure"
