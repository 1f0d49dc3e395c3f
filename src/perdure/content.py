"""Content and its name: canonical JSON, hashes of tensors and files, atomic writes.

The identity of a tensor is the sha256 over its dtype, shape and bytes; the identity of a document
is the sha256 of its canonical JSON. Everything cached or stored in perdure is found by one of these.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import SettingError

if TYPE_CHECKING:
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


def digest_tensor(tensor: "Tensor") -> str:
    """The identity of a tensor: sha256 (hex) over dtype, shape and bytes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    found = hashlib.sha256(f"{dtype}{list(tensor.shape)}\n".encode())
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
