"""Safetensors files written and read piece by piece, so that a file may be far larger than memory.

The format (huggingface/safetensors, format section of its README): eight bytes with the length of the header,
little-endian; the header, one JSON object padded with spaces to a multiple of eight; the tensors' bytes,
row-major and little-endian, without gaps. What is written here has the bytes that the library would write.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from perdure.content import tensor_bytes
from perdure.errors import ModelError

# In the order in which the library lays tensors out: the widest dtype first, by name within a dtype.
_LAID_OUT = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}
PIECE_BYTES = 1 << 23  # what is read, summed and written at a time


@dataclass(frozen=True)
class Blank:
    """A tensor that is still to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie in a file.

    Attributes:
        name: The tensor's name.
        start: Its first byte, counted from the start of the file.
        stop: One past its last byte.
    """

    name: str
    start: int
    stop: int


def write_tensors(
    path: Path,
    blanks: Mapping[str, Blank],
    read: Callable[[str], Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file with one tensor in memory at a time, and sync it.

    Args:
        path: A new file.
        blanks: What will be written, by name.
        read: Gives each tensor when its turn comes.
        metadata: Texts for the header.

    Raises:
        ModelError: A dtype that the format has no place for here, or `read` gives another dtype or shape.
    """
    odd = [name for name, blank in blanks.items() if blank.dtype not in _LAID_OUT]
    if odd:
        raise ModelError(f"{odd[0]} has dtype {blanks[odd[0]].dtype}; it cannot be written")
    ranks = {dtype: rank for rank, dtype in enumerate(_LAID_OUT)}
    order = sorted(blanks, key=lambda name: (ranks[blanks[name].dtype], name.encode()))
    with path.open("xb") as stream:
        stream.write(encoded_header([(name, blanks[name]) for name in order], metadata))
        for name in order:
            tensor = read(name)
            if (tensor.dtype, tuple(tensor.shape)) != (blanks[name].dtype, blanks[name].shape):
                raise ModelError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {blanks[name]}")
            if tensor.numel():
                stream.write(tensor_bytes(tensor))
        stream.flush()
        os.fsync(stream.fileno())


def encoded_header(blanks: Sequence[tuple[str, Blank]], metadata: Mapping[str, str] | None) -> bytes:
    """The bytes of a file before its tensors, which lie in this order: the header's length and the header."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, blank in blanks:
        stop = start + blank.nbytes
        entries[name] = {"dtype": _LAID_OUT[blank.dtype], "shape": list(blank.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def places(path: Path) -> list[Place]:
    """Where each tensor of a safetensors file lies, in the order of the bytes; nothing but the header is read.

    The file must have been opened by the safetensors library before, which checks the header's offsets.
    """
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        entries = json.loads(stream.read(length))
    entries.pop("__metadata__", None)
    first = 8 + length
    found = [Place(name, *(first + at for at in entry["data_offsets"])) for name, entry in entries.items()]
    return sorted(found, key=lambda place: (place.start, place.stop))


def pieces(stream: BinaryIO, size: int, step: int = PIECE_BYTES) -> Iterator[bytearray]:
    """The next `size` bytes of a file, `step` at a time.

    Raises:
        ModelError: The file ends before.
    """
    while size > 0:
        piece = bytearray(min(step, size))
        if stream.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise ModelError(f"{stream.name} ends before its last tensor; it is damaged or was changed meanwhile")
        yield piece
        size -= len(piece)
