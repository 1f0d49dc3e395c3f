"""Tensors of rows in a file: what an error leaves there."""

import pytest
import torch

from perdure.tuning.stores import stored


def test_an_error_in_the_middle_leaves_no_file(tmp_path):
    def fill():
        yield 0, torch.ones(2, 3)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        stored([2, 1], (3,), torch.float32, fill, path=tmp_path / "rows.npy")
    assert list(tmp_path.iterdir()) == []
    kept = stored([2], (3,), torch.float32, lambda: [(0, torch.ones(2, 3))], path=tmp_path / "rows.npy")
    assert kept.row(0).tolist() == [[1.0] * 3] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npy"]
