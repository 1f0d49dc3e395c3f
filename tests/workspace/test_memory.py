"""What a workspace holds in memory, measured on a checkpoint larger than the bound.

The figures are logged: pytest --log-cli-level=INFO.
"""

import logging
import shutil

import pytest
import torch

from big import DOWN, SLACK_MB, peaks_mb, write_big
from perdure.deltas import Change, Delta, LowRank, save_delta

IMPORTS = """
from pathlib import Path
from perdure.deltas import load_delta
from perdure.deltas.exported import ExportedDelta
from perdure.deltas.streaming import apply_to_folder
from perdure.workspace import Workspace
from transformers import AutoTokenizer
from transformers.models.llama import modeling_llama
folder = Path({folder!r})
"""
STEPS = {
    "init": "archive = Workspace.init(folder / 'shop', folder / 'base', actor='a').archive",
    "commit": "delta = load_delta(folder / 'delta.safetensors'); "
    "v1 = archive.commit(archive.version('v0'), delta, solved=delta, recipe={}, actor='a'); del delta",
    "verify": "assert archive.verify().ok",
    "export": "archive.checkout(v1, folder / 'out'); shutil.rmtree(folder / 'out')",
    "export --delta": "archive.write_delta(v1, folder / 'v1.safetensors')",
    "apply": "done = apply_to_folder(folder / 'base', ExportedDelta.open(folder / 'v1.safetensors'), folder / 'out'); "
    "assert done.checked and done.changed == 3",
}


@pytest.fixture
def big(tmp_path):
    """A checkpoint of 650 MB and a delta: low-rank, low-rank again, and dense; all gone afterwards."""
    largest = write_big(tmp_path / "base", layers=6, width=1024, inner=14336, shards=3)
    generator = torch.Generator().manual_seed(1)
    changes = {
        DOWN.format(layer): Change(
            LowRank(torch.randn(1024, 4, generator=generator), torch.randn(4, 14336, generator=generator))
        )
        for layer in (2, 3)
    }
    changes[DOWN.format(5)] = Change(dense=1e-3 * torch.randn(1024, 14336, generator=generator))
    save_delta(Delta(changes), tmp_path / "delta.safetensors")
    yield tmp_path, largest / 1e6
    shutil.rmtree(tmp_path)


def test_no_step_holds_more_than_two_tensors_and_200_mb(big):
    folder, largest = big
    total = sum(shard.stat().st_size for shard in (folder / "base").glob("*.safetensors")) / 1e6
    peaks = peaks_mb("import shutil" + IMPORTS.format(folder=str(folder)), STEPS)
    bound = 2 * largest + SLACK_MB
    logging.info(f"{total:.0f} MB, largest tensor {largest:.0f} MB, allowed {bound:.0f} MB above the imports")
    logging.info({name: f"{peak['above']:.0f} above, {peak['all']:.0f} in all" for name, peak in peaks.items()})
    assert total > 1.5 * bound
    assert all(peak["above"] < bound for peak in peaks.values()), peaks
