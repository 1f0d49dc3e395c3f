"""How a changed tensor is written: low-rank factors, a compressed difference of bytes, or in full.

Every encoding gives back the tensor bit for bit: the factors because `changed` is defined by IEEE
operations alone, the others because they are copies of the bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16
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
    difference = np.bitwise_xor(np.asarray(tensor_bytes(new)), np.asarray(tensor_bytes(reference)))
    planes = np.ascontiguousarray(difference.reshape(-1, new.element_size()).T)
    return zstandard.ZstdCompressor(level=_LEVEL).compress(planes.data.cast("B"))


def _decompress(data: Tensor, reference: Tensor) -> Tensor:
    packed = bytes(tensor_bytes(data))
    # The decompressor trusts the size in the frame's header, so that is compared first.
    if zstandard.get_frame_parameters(packed).content_size != reference.nbytes:
        raise ValueError("it has not the size of its reference")
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), dtype=np.uint8)
    size = reference.element_size()
    difference = np.ascontiguousarray(planes.reshape(size, -1).T).reshape(-1)
    bits = np.bitwise_xor(difference, np.asarray(tensor_bytes(reference)))
    return torch.from_numpy(bits).view(reference.dtype).reshape(reference.shape)


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of the tensor is NaN or infinite; one pass, no copy."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)  # both are NaN if any number is
    return bool(torch.isfinite(low) and torch.isfinite(high))
