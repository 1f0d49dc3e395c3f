"""What applying a delta holds in memory, measured on a checkpoint larger than the bound.

The figures are logged: pytest --log-cli-level=INFO.
"""

import logging
import shutil

import pytest
import torch

from big import DOWN, SLACK_MB, peaks_mb, write_big
from perdure.deltas import Change, Delta, LowRank, changed, save_delta
from perdure.models import Checkpoint

IMPORTS = """
from pathlib import Path
from perdure.deltas import load_delta
from perdure.deltas.streaming import apply_to_folder
"""


@pytest.fixture
def big(tmp_path):
    """A checkpoint of 1.1 GB, and the bytes of its largest tensor; gone afterwards."""
    largest = write_big(tmp_path / "base", layers=5, width=2048, inner=14336, shards=5)
    yield tmp_path, largest / 1e6
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_applying_holds_less_than_two_tensors_and_200_mb(big):
    folder, largest = big
    generator = torch.Generator().manual_seed(1)
    factors = {
        DOWN.format(layer): Change(
            LowRank(torch.randn(2048, 4, generator=generator), torch.randn(4, 14336, generator=generator))
        )
        for layer in (2, 3, 4)
    }
    save_delta(Delta(factors), folder / "delta.safetensors")
    total = sum(shard.stat().st_size for shard in (folder / "base").glob("*.safetensors")) / 1e6
    bound = 2 * largest + SLACK_MB
    assert total > 2 * bound
    work = "apply_to_folder(folder / 'base', load_delta(folder / 'delta.safetensors'), folder / 'out')"
    peak = peaks_mb(f"{IMPORTS}folder = Path({str(folder)!r})", {"apply": work})["apply"]
    logging.info(f"{total:.0f} MB, largest tensor {largest:.0f} MB, peak {peak}")
    assert peak["all"] < bound, peak  # the interpreter, torch and all
    assert peak["above"] < largest, peak
    before, after = Checkpoint.open(folder / "base"), Checkpoint.open(folder / "out")
    assert after.entries.keys() == before.entries.keys()
    for name in (DOWN.format(2), DOWN.format(1), "model.embed_tokens.weight"):
        expected = changed(before.tensor(name), factors[name]) if name in factors else before.tensor(name)
        assert torch.equal(after.tensor(name), expected)
