"""Tasks as versions: one for each, each on the one before, resumable, with memory and states passed on."""

import json

import pytest
import torch

import tiny
from perdure.errors import RefusedError, RequestError, SettingError, TuneError
from perdure.requests.tasks import Task
from perdure.tuning.regularizers.distillation import Distillation
from perdure.tuning.top_k import top_k
from perdure.workspace import Workspace
from perdure.workspace.tuning import carry_out_tuning, kept_tests
from tuning_tasks import FIRST, UPPER, task

QUICK = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture
def shop(tmp_path):
    return Workspace.init(tmp_path / "shop", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")


def test_each_task_is_a_version_on_the_one_before(shop):
    first, second = shop.tune([UPPER, FIRST], QUICK, actor="kato")
    assert first.parent == shop.version("v0").id
    assert second.parent == first.id
    assert second.manifest.recipe["task"]["name"] == "first"
    assert second.manifest.recipe["config"]["learning_rate"] == 1e-2
    assert kept_tests(shop, second) == FIRST.test
    solved = shop.archive.solved(second)
    assert all(change.is_low_rank for change in solved.changes.values())
    assert solved.notes["training"]["log"]
    shop.archive.verify()


def test_the_version_is_the_parent_plus_its_delta(shop):
    (made,) = shop.tune(UPPER, QUICK, actor="kato")
    base, after = shop.archive.tensors(shop.version("v0")), shop.archive.tensors(made)
    for name, change in shop.archive.solved(made).changes.items():
        assert torch.allclose(after[name].double(), base[name].double() + change.value(), atol=1e-6)
    changed = {name for name in base if not torch.equal(base[name], after[name])}
    assert changed == set(shop.archive.solved(made).changes)


def test_a_rollback_brings_the_very_same_weights_back(shop):
    shop.tune(UPPER, {**QUICK, "method": "full", "learning_rate": 1e-3}, actor="kato")
    again, _ = shop.load("v0", fresh=True)
    original = tiny.llama()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), original.parameters(), strict=True))


def test_the_same_plan_gives_the_same_version(shop):
    (first,) = shop.tune(UPPER, QUICK, on="v0", actor="kato")
    (second,) = shop.tune(UPPER, QUICK, on="v0", actor="kato")
    assert first.id == second.id or _weights(shop, first) == _weights(shop, second)


def _weights(shop, version):
    return {name: record.hash for name, record in version.manifest.tensors.items()}


def test_what_regularizers_know_of_earlier_tasks_is_passed_on(shop):
    settings = {**QUICK, "regularizers": [{"kind": "ewc", "rows": 4}, {"kind": "orthogonal"}]}
    first, second = shop.tune([UPPER, FIRST], settings, actor="kato")
    states = shop.folder / "tuning" / "states"
    assert (states / first.id / "ewc.safetensors").is_file()
    assert (states / second.id / "ewc.safetensors").is_file()
    log = shop.archive.solved(second).notes["training"]["log"]
    assert log[-1]["regularizer/ewc"] > 0
    assert log[-1]["regularizer/orthogonal"] > 0
    assert shop.archive.solved(first).notes["training"]["log"][-1]["regularizer/ewc"] == 0


def test_replay_keeps_rows_only_when_asked(shop):
    (plain,) = shop.tune(UPPER, QUICK, actor="kato")
    assert "memory" not in shop.archive.solved(plain).notes
    settings = {**QUICK, "replay": {"share": 0.3, "size": 5}}
    first, second = shop.tune([UPPER, FIRST], settings, on="v0", actor="kato")
    assert len(shop.archive.solved(first).notes["memory"]["rows"]) == 5
    memory = shop.archive.solved(second).notes["memory"]
    assert memory["seen"] == len(UPPER.train) + len(FIRST.train)
    assert shop.archive.solved(second).notes["training"]["rows"] == len(FIRST.train) + 3


def test_targets_of_the_reference_are_read_once(shop, monkeypatch):
    settings = {**QUICK, "regularizers": [{"kind": "distillation"}]}
    shop.tune(UPPER, settings, on="v0", actor="kato")
    files = sorted(path.name for path in (shop.folder / "tuning" / "targets").iterdir())
    assert len(files) == 2
    read = []
    monkeypatch.setattr("perdure.tuning.top_k.top_k", lambda *args: read.append(args) or top_k(*args))
    shop.tune(UPPER, {**settings, "learning_rate": 5e-3}, on="v0", actor="kato")
    assert not read


def test_an_interrupted_training_goes_on(shop, monkeypatch):
    plan = shop.plan_tuning(UPPER, {**QUICK, "regularizers": [{"kind": "distillation"}], "save_every": 1})
    whole = carry_out_tuning(shop, plan, actor="kato")
    weights = _weights(shop, whole)
    calls = []

    def dies(self, seen):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return penalty(self, seen)

    penalty = Distillation.penalty
    other = Workspace.init(shop.folder.parent / "other", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    monkeypatch.setattr(Distillation, "penalty", dies)
    with pytest.raises(KeyboardInterrupt):
        carry_out_tuning(other, plan, actor="kato")
    assert len(other.archive.versions()) == 1
    assert list((other.folder / "work").glob("tuning-*/checkpoint-*"))
    resumed = carry_out_tuning(other, plan, actor="kato")
    assert len(calls) < 2 * 3 + 2
    assert _weights(other, resumed) == weights
    assert not list((other.folder / "work").glob("tuning-*"))


def test_what_was_made_before_an_error_stays_and_is_named(shop):
    empty = Task(name="empty", instruction="", train=(), validation=(), test=())
    with pytest.raises(RequestError, match=r"task 'empty'.*Made before it: v1 \(upper\)"):
        shop.tune([UPPER, empty], QUICK, actor="kato")
    assert [version.name for version in shop.archive.versions()] == ["v0", "v1"]


def test_a_loss_that_is_no_number_leaves_the_workspace_as_it_was(shop):
    before = json.dumps([version.id for version in shop.archive.versions()])
    with pytest.raises(TuneError, match="learning_rate"):
        shop.tune(UPPER, {**QUICK, "learning_rate": 1e30, "max_grad_norm": 1e30, "epochs": 9}, actor="kato")
    assert json.dumps([version.id for version in shop.archive.versions()]) == before


def test_settings_are_checked_before_anything_is_computed(shop):
    with pytest.raises(SettingError, match="epochz"):
        shop.plan_tuning(UPPER, {"epochz": 3})
    with pytest.raises(SettingError, match="distilation"):
        shop.plan_tuning(UPPER, {"regularizers": [{"kind": "distilation"}]})
    with pytest.raises(SettingError, match=r"down_proj, gate_proj"):
        shop.tune(UPPER, {"targets": ["qq_proj"]}, actor="kato")


def test_a_rejected_version_is_not_tuned(shop):
    (made,) = shop.tune(UPPER, QUICK, actor="kato")
    shop.archive.reject(made, actor="mori", reason="wrong")
    with pytest.raises(RefusedError, match="rejected"):
        shop.plan_tuning(FIRST, QUICK, on=made)
    assert shop.plan_tuning(FIRST, QUICK).parent == shop.version("v0").id


def test_an_edit_and_a_tuning_stand_on_each_other(shop):
    (tuned,) = shop.tune(UPPER, QUICK, actor="kato")
    fact = {"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch"}
    edited = shop.edit(
        [fact], restraint="prune", config={"values": {"steps": 3}, "contexts": 1}, on=tuned, actor="kato"
    )
    assert edited.parent == tuned.id
    (last,) = shop.tune(FIRST, QUICK, on=edited, actor="kato")
    assert [version.name for version in shop.archive.lineage(last)] == ["v0", "v1", "v2", "v3"]


def test_a_task_of_long_rows_is_refused_with_their_names(shop):
    long = task("long", lambda word: word * 400, count=6)
    with pytest.raises(RequestError, match="longer than max_tokens=64"):
        shop.tune(long, {**QUICK, "max_tokens": 64}, actor="kato")
