import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from perdure.errors import ModelError
from perdure.models.tensor_files import Blank, pieces, places, write_tensors

TENSORS = {
    "b.weight": torch.randn(3, 5).bfloat16(),
    "a.weight": torch.randn(7),
    "z.weight": torch.randn(2, 3, 4).half(),
    "wide": torch.randn(3).double(),
    'odd "name" é\n': torch.zeros(0, 4),
    "number": torch.tensor(-0.0),
    "steps": torch.tensor(7),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "strided": torch.randn(6, 4).T,
}
BLANKS = {name: Blank(tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"quote": 'a "b" ü'}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    write_tensors(tmp_path / "ours", BLANKS, TENSORS.__getitem__, metadata=metadata)
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / "theirs", metadata=metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_library_reads_it_back_bit_for_bit(tmp_path):
    write_tensors(tmp_path / "ours", BLANKS, TENSORS.__getitem__)
    found = load_file(tmp_path / "ours")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    assert torch.signbit(found["number"])


def test_one_tensor_is_asked_for_at_a_time_in_the_order_of_the_file(tmp_path):
    asked = []
    write_tensors(tmp_path / "ours", BLANKS, lambda name: asked.append(name) or TENSORS[name])
    assert asked == [place.name for place in places(tmp_path / "ours")]
    assert sorted(asked) == sorted(TENSORS)


def test_a_tensor_other_than_announced_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not Blank"):
        write_tensors(tmp_path / "ours", {"a": Blank(torch.float32, (2,))}, lambda _name: torch.zeros(3))
    with pytest.raises(ModelError, match="cannot be written"):
        write_tensors(tmp_path / "other", {"a": Blank(torch.complex64, (2,))}, lambda _name: torch.zeros(3))


def test_places_lead_to_the_bytes(tmp_path):
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2).bfloat16()}, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    for place in places(tmp_path / "file"):
        with safe_open(tmp_path / "file", framework="pt") as stream:
            tensor = stream.get_tensor(place.name)
        assert data[place.start : place.stop] == tensor.view(torch.uint8).numpy().tobytes()
    assert places(tmp_path / "file")[-1].stop == len(data)
    assert json.loads(data[8 : places(tmp_path / "file")[0].start])


def test_pieces_come_whole_or_not_at_all(tmp_path):
    (tmp_path / "file").write_bytes(b"abcdefg")
    with (tmp_path / "file").open("rb") as stream:
        assert [bytes(piece) for piece in pieces(stream, 5, 2)] == [b"ab", b"cd", b"e"]
        with pytest.raises(ModelError, match="ends before"):
            list(pieces(stream, 3, 2))
