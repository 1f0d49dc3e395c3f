import numpy as np
import pytest
import torch
import zstandard

from perdure.content import tensor_bytes
from perdure.deltas import Change, LowRank, changed
from perdure.errors import IntegrityError
from perdure.workspace import encodings
from perdure.workspace.encodings import DTYPES, FULL, LOW_RANK, XOR, Encoded, decode, encode

SHAPES = [(3, 5), (40, 31), (7,), (0, 4), ()]


def pair(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(shape, generator=generator, dtype=torch.float64)
    new = old + 1e-4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return old.to(dtype), new.to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_difference_gives_the_bits_back_in_pieces_of_any_size(dtype, shape, monkeypatch):
    old, new = pair(dtype, shape)
    packed = encodings._compress(new, old)
    kept = old.clone()
    for piece in (1 << 22, 7):
        monkeypatch.setattr(encodings, "_PIECE", piece)
        assert zstandard.get_frame_parameters(encodings._compress(new, old)).content_size == old.nbytes
        data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        assert torch.equal(decode(Encoded(XOR, {"data": data}), dtype, tuple(shape), old), new)
    assert torch.equal(old, kept)


def test_differences_packed_in_one_piece_are_still_read():
    """As written before pieces: the same planes, compressed at once."""
    old, new = pair(torch.float32, (40, 31))
    bits = np.frombuffer(tensor_bytes(new), np.uint8) ^ np.frombuffer(tensor_bytes(old), np.uint8)
    packed = zstandard.ZstdCompressor(level=3).compress(np.ascontiguousarray(bits.reshape(-1, 4).T).data.cast("B"))
    data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    assert torch.equal(decode(Encoded(XOR, {"data": data}), torch.float32, (40, 31), old), new)


@pytest.mark.parametrize("damage", ["cut", "longer", "other size", "noise"])
def test_a_damaged_difference_is_refused(damage):
    old, new = pair(torch.float32, (40, 31))
    packed = encodings._compress(new, old)
    frames = {
        "cut": packed[: len(packed) // 2],
        "longer": zstandard.ZstdCompressor().compress(b"x" * old.nbytes)[:-4] + packed,
        "other size": encodings._compress(new[:3], old[:3]),
        "noise": bytes(range(64)),
    }
    data = torch.frombuffer(bytearray(frames[damage]), dtype=torch.uint8)
    with pytest.raises(IntegrityError, match="does not decode"):
        decode(Encoded(XOR, {"data": data}), torch.float32, (40, 31), old)


def test_the_smallest_encoding_is_chosen():
    old = torch.randn(64, 64)
    few = Change(LowRank(torch.randn(64, 2), torch.randn(2, 64)))
    near = Change(dense=torch.zeros(64, 64).index_fill(0, torch.tensor([3]), 1.0))
    far = Change(dense=torch.randn(64, 64))
    assert [encode(changed(old, change), old, change).encoding for change in (few, near, far)] == [LOW_RANK, XOR, FULL]
