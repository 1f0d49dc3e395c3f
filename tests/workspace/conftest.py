"""A tiny workspace (random tensors, no transformers) that tests copy and then hurt."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from perdure.deltas import Change, Delta, LowRank
from perdure.governance.canary import CanaryPlan
from perdure.governance.drift import Finding
from perdure.models.checkpoint import Checkpoint
from perdure.requests.kpis import checked_kpi
from perdure.requests.problems import Place
from perdure.workspace import lock
from perdure.workspace.archive import Archive
from perdure.workspace.observing import PlacedKpi

POLICY = "policy-digest"
DOWN = "model.layers.{}.mlp.down_proj.weight"


@pytest.fixture(autouse=True, scope="session")
def _small_ballast():
    before, lock.BALLAST_BYTES = lock.BALLAST_BYTES, 4096
    torch.set_num_threads(1)
    yield
    lock.BALLAST_BYTES = before


def write_checkpoint(folder: Path, dtype: torch.dtype = torch.float32, shards: int = 1) -> Path:
    generator = torch.Generator().manual_seed(7)
    tensors = {"model.embed_tokens.weight": torch.randn(64, 32, generator=generator)}
    for layer in range(3):
        tensors[DOWN.format(layer)] = torch.randn(32, 128, generator=generator)
        tensors[f"model.layers.{layer}.norm.weight"] = torch.ones(32)  # three names, equal bits
    tensors = {name: value.to(dtype) for name, value in tensors.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny"}))
    (folder / "tokenizer.json").write_text('{"tokens": ["ä"]}')
    names = list(tensors)
    for shard in range(shards):
        part = {name: tensors[name] for name in names[shard::shards]}
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
    return folder


def low_rank_delta(layer: int = 0, seed: int = 0, scale: float = 0.1) -> Delta:
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(32, 1, generator=generator) * scale, torch.randn(1, 128, generator=generator))
    keys = {DOWN.format(layer): torch.randn(128, 2, generator=generator)}
    return Delta({DOWN.format(layer): Change(factors)}, keys, {"seed": seed})


def dense_delta(layer: int = 1, seed: int = 1, scale: float = 1e-6) -> Delta:
    generator = torch.Generator().manual_seed(seed)
    return Delta({DOWN.format(layer): Change(dense=torch.randn(32, 128, generator=generator) * scale)})


def build(folder: Path, checkpoint: Path) -> None:
    """v0; v1 low-rank, reported, approved; v2 dense, reported. production: v0; staging: v0, then v1."""
    with Archive.create(folder, Checkpoint.open(checkpoint), actor="mori", source="tiny") as archive:
        v0 = archive.version("v0")
        delta = low_rank_delta()
        v1 = archive.commit(v0, delta, solved=delta, recipe={"editor": "rome"}, actor="mori")
        report = archive.put_report(v1, {"retention": 0.99}, actor="mori")
        archive.approve(v1, report=report, policy=POLICY, actor="kato")
        v2 = archive.commit(v1, dense_delta(), solved=dense_delta(), recipe={"editor": "ft"}, actor="mori")
        archive.put_report(v2, {"retention": 0.5}, actor="mori")
        archive.promote(v0, "production", actor="mori", policy=POLICY, expected=None)
        archive.promote(v0, "staging", actor="mori", policy=POLICY, expected=None)
        archive.promote(v1, "staging", actor="mori", policy=POLICY, expected=v0)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    checkpoint = write_checkpoint(folder / "checkpoint")
    build(folder / "shop", checkpoint)
    with Archive.open(folder / "shop") as archive:
        versions = archive.versions()
        truth = {version.name: {n: t.clone() for n, t in archive.tensors(version).items()} for version in versions}
        ids = {version.name: version.id for version in versions}
    return SimpleNamespace(folder=folder / "shop", checkpoint=checkpoint, truth=truth, ids=ids)


@pytest.fixture
def shop(template, tmp_path) -> Path:
    """A fresh copy of the template workspace; nothing has it open."""
    return Path(shutil.copytree(template.folder, tmp_path / "shop"))


@pytest.fixture
def archive(shop):
    with Archive.open(shop) as opened:
        yield opened


def fill(folder: Path) -> None:
    """A row in every governed table: mori requests and operates, kato approves, sato is the admin."""
    with Archive.open(folder) as archive:
        v0, v1, v2 = archive.versions()
        archive.put_policy("[edits]", "another policy", actor="sato")
        archive.grant("sato", "admin", actor="sato")
        for member, role in (("mori", "requester"), ("mori", "operator"), ("kato", "approver")):
            archive.grant(member, role, actor="sato")
        archive.comment(v2, "Why so many?", actor="kato")
        archive.start_canary(v1, "production", CanaryPlan(), actor="mori", policy=POLICY)
        archive.step_canary("production", 0.2, actor="mori")
        archive.end_canary("production", "fall back", actor="mori", reason="slow")
        day = timedelta(days=1)
        broken = archive.break_glass(v2, "staging", actor="mori", reason="outage", expires=day, policy=POLICY)
        archive.review(broken.sequence, actor="kato", comment="seen")
        archive.promote(v0, "staging", actor="mori", policy=POLICY, expected=v2)
        archive.enter_kpis([placed_kpi(v0)], actor="kato")
        found = Finding(measure="retention", subject="all", value=0.0, low=-0.1, high=0.1, n=9)
        archive.put_observation(v0, "production", [found], actor="mori", policy=POLICY)


def placed_kpi(version, **more):
    month = {"period_start": "2026-03-01", "period_end": "2026-03-31"}
    values = {"name": "rework", "unit": "h", "better": "lower", "version": version.name, "value": 7, **month}
    return PlacedKpi(Place("kpis.csv", 2), checked_kpi({**values, **more}), version)


@pytest.fixture
def full_shop(shop) -> Path:
    """The template with a row in every governed table, and members."""
    fill(shop)
    return shop


@pytest.fixture
def in_child() -> Callable[..., int]:
    """Run a function in a forked child; its exit code, negative for the signal that ended it."""

    def run(action: Callable[[], object], *, failpoint: int | None = None, kill_after: float | None = None):
        child = os.fork()
        if child == 0:
            code = 70
            try:
                if failpoint is not None:
                    os.environ["PERDURE_FAILPOINT"] = str(int(failpoint))
                code = action() or 0
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code if isinstance(code, int) else 0)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.fixture(scope="session")
def tiny():
    """The builders and constants, for tests that need their own."""
    return SimpleNamespace(
        write_checkpoint=write_checkpoint,
        low_rank=low_rank_delta,
        dense=dense_delta,
        build=build,
        fill=fill,
        kpi=placed_kpi,
        policy=POLICY,
        down=DOWN,
    )
