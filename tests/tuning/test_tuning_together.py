"""Two processes train as one does: the same losses, the same change, in each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import tiny as models
import train_together
from perdure.errors import SettingError, TuneError
from perdure.tuning import processes
from perdure.tuning.config import TuningConfig

TESTS = Path(train_together.__file__).parent
COMMON = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-2, "rank": 2, "alpha": 4}
HEADS = {"kind": "function_vector", "heads": [[0, 1], [1, 2]], "shots": 2, "prompts": 2}
HELD = {"regularizers": [HEADS, {"kind": "feature_distance"}, {"kind": "distillation"}, {"kind": "l2sp"}]}
ONE_ANCHOR = {"regularizers": [{"kind": "distillation", "on": "anchors"}], "anchors": 1}
SOUND = {"averaging": {"form": "sound"}}
KFAC = {"regularizers": [{"kind": "kfac"}, {"kind": "distillation", "on": "anchors"}], "anchors": 1}


def together(out, settings):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [*command, str(TESTS / "train_together.py"), str(out), json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return read(out, 0), read(out, 1)


def read(out, rank):
    return json.loads(Path(f"{out}.{rank}.json").read_text()), load_file(f"{out}.{rank}")


def close(first, second, tolerance):
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) <= tolerance
    return True


@pytest.mark.parametrize(
    "settings",
    [
        SOUND,
        ONE_ANCHOR,
        {"method": "full", "learning_rate": 1e-3, "patience": 2},
        {"sharding": "fsdp2", "accumulation": 2, "max_steps": 3},
        {"sharding": "fsdp2", **HELD, **SOUND},
        {"sharding": "fsdp2", **KFAC, **SOUND},
    ],
    ids=[
        "data parallel",
        "data parallel, an anchor",
        "data parallel, full, patience",
        "fsdp2, accumulated",
        "fsdp2, held and averaged",
        "fsdp2, K-FAC",
    ],
)
def test_two_processes_train_as_one(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(models, "DEPTH", 2)
    settings = COMMON | settings
    first, second = together(tmp_path / "two", settings)
    train_together.main(str(tmp_path / "one"), json.dumps(settings | {"sharding": "none"}))
    losses, weights = read(tmp_path / "one", 0)
    held = "regularizers" in settings and "anchors" not in settings  # penalties are means over the rows of each process
    assert first[0] == second[0] == pytest.approx(losses, abs=1e-5 if not held else 5e-2)
    assert close(first[1], second[1], 0)
    states = [load_file(tmp_path / f"two.{rank}.states") for rank in (0, 1)]
    assert bool(states[0]) == (settings.get("regularizers") == KFAC["regularizers"])
    assert not states[0] or close(*states, 0)
    assert close(first[1], weights, 1e-5 if not held else 5e-2)


@pytest.mark.parametrize(
    "settings",
    [{"method": "full"}, {"patience": 1}, {"regularizers": ({"kind": "ewc"},)}],
)
def test_what_sharding_cannot_do_is_told(settings):
    with pytest.raises(ValueError, match="it needs method=lora"):
        TuningConfig(sharding="fsdp2", **settings)


def test_sharding_needs_processes(tiny, monkeypatch):
    with pytest.raises(SettingError, match="torchrun --nproc_per_node"):
        processes.join(tiny[0], TuningConfig(sharding="fsdp2"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingError, match="batch_size=16 is not a multiple of the 3 processes"):
        processes.join(tiny[0], TuningConfig())


def test_what_is_not_in_force_is_told(tiny):
    with pytest.raises(TuneError, match="started 1 processes and the training sees 2"):
        processes.check_in_force(tiny[0], 2, TuningConfig())
    with pytest.raises(TuneError, match=r"fsdp2 is not in force: model\.layers\.0\.mlp"):
        processes.check_in_force(tiny[0], 1, TuningConfig(sharding="fsdp2"))
