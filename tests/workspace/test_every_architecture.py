"""A workspace of each architecture in bfloat16: edited, restrained, exported, verified."""

import pytest
import torch

from perdure import Workspace
from perdure.deltas import contract
from perdure.models import load
from perdure.requests import check_facts
from perdure.workspace.runs import Settings

FACTS = [{"subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": "Manila"}]
LOUD = {"values": {"steps": 12, "clamp": 200, "learning_rate": 4}, "contexts": 0, "layers": [1], "moment_weight": 1e-4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_prune_holds_what_an_edit_adds_below_its_ceiling(family, dtype, tmp_path):
    model, tokenizer = family
    shop = Workspace.init(tmp_path / "shop", model.to(dtype), tokenizer=tokenizer, actor="sato")
    versions = []
    for restraint in ("none", "prune"):
        plan, _ = shop.plan(check_facts(FACTS).facts, Settings("memit", LOUD, restraint), on="v0")
        versions.append(shop.carry_out(plan, actor="sato"))
    base, free, held = (shop.archive.tensors(version) for version in (shop.version("v0"), *versions))
    changed = [name for name in base if not torch.equal(base[name], free[name])]
    assert len(changed) == 1
    top, loose, tight = (
        float(torch.linalg.matrix_norm(weight.double(), ord=2))
        for weight in (base[changed[0]], free[changed[0]] - base[changed[0]], held[changed[0]] - base[changed[0]])
    )
    assert loose > top  # or there is nothing to restrain
    ceiling = float(contract(torch.tensor([loose], dtype=torch.float64), top, "clamped", 1.2))
    assert tight == pytest.approx(ceiling, rel=1e-3 if dtype == torch.float32 else 0.05)
    shop.export(versions[1], tmp_path / "out")
    exported = load(tmp_path / "out")[0]
    assert exported.dtype == dtype
    assert all(torch.equal(weight, held[name]) for name, weight in exported.named_parameters() if name in held)
    assert shop.archive.verify().ok
