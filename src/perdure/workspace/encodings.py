"""How a changed tensor is written: low-rank factors, a compressed difference of bytes, or in full.

Every encoding gives back the tensor bit for bit: the factors because `changed` is defined by IEEE
operations alone, the others because they are copies of the bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from perdure.content import tensor_bytes
from perdure.deltas import Change, LowRank, changed
from perdure.errors import IntegrityError

LOW_RANK, XOR, FULL = "low_rank", "xor", "full"
ENCODINGS = (LOW_RANK, XOR, FULL)
_WORTHWHILE = 2  # a reference to another object must at least halve the bytes
_LEVEL = 3
_PIECE = 1 << 22  # numbers whose bytes are worked on at a time
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64
)}  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A tensor in one of the encodings.

    Attributes:
        encoding: One of `ENCODINGS`.
        parts: What the object file holds.
    """

    encoding: str
    parts: Mapping[str, Tensor]

    @property
    def needs_reference(self) -> bool:
        """Whether another tensor is needed to decode it."""
        return self.encoding != FULL


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype's name without its module, for example "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def encode_full(new: Tensor) -> Encoded:
    """The tensor as it is."""
    return Encoded(FULL, {"data": new.contiguous()})


def encode(new: Tensor, reference: Tensor, change: Change) -> Encoded:
    """The smallest encoding that is worth a reference: factors, else compressed difference, else full.

    Args:
        new: The tensor to store; equal to `changed(reference, change)`.
        reference: The tensor that it was made from.
        change: What was added to the reference.
    """
    allowed = new.nbytes // _WORTHWHILE
    if change.low_rank is not None and change.is_low_rank:
        parts = {"left": change.low_rank.left, "right": change.low_rank.right}
        if sum(part.nbytes for part in parts.values()) <= allowed:
            return Encoded(LOW_RANK, {name: part.contiguous().cpu() for name, part in parts.items()})
    packed = _compress(new, reference)
    if len(packed) <= allowed:
        return Encoded(XOR, {"data": torch.frombuffer(bytearray(packed), dtype=torch.uint8)})
    return encode_full(new)


def decode(encoded: Encoded, dtype: torch.dtype, shape: tuple[int, ...], reference: Tensor | None) -> Tensor:
    """The tensor that was encoded.

    Raises:
        IntegrityError: The parts do not fit the encoding, the dtype or the shape.
    """
    try:
        tensor = _decode(encoded, reference)
    except (KeyError, ValueError, RuntimeError, zstandard.ZstdError) as error:
        raise IntegrityError(f"its {encoded.encoding} encoding does not decode: {error}") from error
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        found = f"{dtype_name(tensor.dtype)} {list(tensor.shape)}"
        raise IntegrityError(f"it holds {found} where {dtype_name(dtype)} {list(shape)} was recorded")
    return tensor


def _decode(encoded: Encoded, reference: Tensor | None) -> Tensor:
    if encoded.encoding == FULL:
        return encoded.parts["data"]
    if reference is None:
        raise ValueError("it names no reference")
    if encoded.encoding == LOW_RANK:
        return changed(reference, Change(LowRank(encoded.parts["left"], encoded.parts["right"])))
    return _decompress(encoded.parts["data"], reference)


def _compress(new: Tensor, reference: Tensor) -> bytes:
    """The XOR of the bits, grouped by the bytes' place in the number, compressed."""
    new_NB, old_NB = _byte_rows(new), _byte_rows(reference)
    packer = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=new_NB.size)
    parts = []
    for place in range(new_NB.shape[1]):
        for start in range(0, len(new_NB), _PIECE):
            rows = slice(start, start + _PIECE)
            parts.append(packer.compress((new_NB[rows, place] ^ old_NB[rows, place]).data))
    return b"".join([*parts, packer.flush()])


def _decompress(data: Tensor, reference: Tensor) -> Tensor:
    """What was compressed against `reference`; beside the result only pieces are held."""
    packed = tensor_bytes(data)
    # The decompressor trusts the size in the frame's header, so that is compared first.
    if zstandard.get_frame_parameters(packed).content_size != reference.nbytes:
        raise ValueError("it has not the size of its reference")
    result = reference.clone(memory_format=torch.contiguous_format)
    bits_NB = _byte_rows(result)
    with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
        for place in range(bits_NB.shape[1]):
            for start in range(0, len(bits_NB), _PIECE):
                rows = bits_NB[start : start + _PIECE, place]
                rows ^= np.frombuffer(_exactly(stream, len(rows)), dtype=np.uint8)
        if stream.read(1):
            raise ValueError("it goes on after its last number")
    return result


def _byte_rows(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The bytes of a tensor, one row per number; a view where the tensor is contiguous."""
    return np.frombuffer(tensor_bytes(tensor), dtype=np.uint8).reshape(-1, tensor.element_size())


def _exactly(stream: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise ValueError("it ends early")
        data += more
    return bytes(data)


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of the tensor is NaN or infinite; one pass, no copy."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)  # both are NaN if any number is
    return bool(torch.isfinite(low) and torch.isfinite(high))
