"""Encoders in a workspace: labelled sets are learnt into versions, probed in reports, gated, rolled back, exported."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny_encoders as encoders
from perdure import Workspace
from perdure.cli.app import app
from perdure.errors import RefusedError, RequestError, SettingError
from perdure.measuring.discovery import DiscoverySettings, find_concepts
from perdure.measuring.watched import Marks
from perdure.measuring.watched_files import FOLDER, save_found, write_marks
from perdure.requests.concepts import read_probe, read_unlabelled
from perdure.requests.tasks import Task
from perdure.tuning.encoders import run
from perdure.tuning.encoders.heads import load_head
from perdure.workspace import encoder_tuning
from perdure.workspace.advice import advise_tasks
from perdure.workspace.differences import diff_versions
from perdure.workspace.heads import head_name, heads_of
from perdure.workspace.probe_sets import add_set, drop_set, entry_of, named_apart, probe_sets
from perdure.workspace.runs import Settings
from perdure.workspace.watched import data_of, encoder_of

FAST = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}


def labelled(path, seed, classes=3, train=24, test=12):
    """Images whose classes differ in brightness, so that there is something to learn."""
    drawn = np.random.default_rng(seed)
    parts = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = drawn.integers(0, 60, (count, 32, 32, 3))
        parts[f"x_{part}"] = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        parts[f"y_{part}"] = labels
    np.savez(path, **parts)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return encoders.write_folder("vit", tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture
def shop(tmp_path, base):
    return Workspace.init(tmp_path / "shop", base, actor="sato")


def test_two_sets_are_learnt_and_the_others_are_probed(shop, tmp_path):
    first, second, other = (labelled(tmp_path / f"{name}.npz", seed) for seed, name in enumerate(("a", "b", "other")))
    probes = [read_probe(first), read_probe(second)]
    for path in (first, second, other):
        assert add_set(shop, entry_of(read_probe(path), path), actor="sato")
    versions = list(shop.learn_each(probes, FAST, actor="sato"))
    assert [version.name for version in versions] == ["v1", "v2"]
    assert "perdure report v2" in diff_versions(shop, *versions).note
    report = shop.measure("v2")
    assert report.encoder and report.retention is None and report.language is None
    found = {each.name: each for each in report.concepts.sets}
    assert found["a"].tuned and found["b"].tuned and not found["other"].tuned
    assert report.concepts.linear.sets == 1
    assert found["b"].head is not None and found["b"].head.n == 12 and found["other"].head is None
    assert found["other"].linear.against_base is not None
    gates = {verdict.gate for verdict in report.verdicts}
    assert "concepts kept" in gates and not gates & {"retention", "language"}
    assert heads_of(shop, versions[1]).keys() == {head_name(probe.digest) for probe in probes}


def test_learning_is_deterministic_and_goes_back_bit_for_bit(shop, tmp_path):
    probe = read_probe(labelled(tmp_path / "a.npz", 0))
    before = {name: tensor.clone() for name, tensor in shop.archive.tensors(shop.version("v0")).items()}
    (made,) = shop.learn_each([probe], FAST, actor="sato")
    (again,) = shop.learn_each([probe], FAST, on="v0", actor="sato")
    assert again.manifest.tensors == made.manifest.tensors and again.manifest.files == made.manifest.files
    changed = shop.archive.tensors(made)
    assert any(not torch.equal(changed[name], tensor) for name, tensor in before.items())
    after = shop.archive.tensors(shop.version("v0"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert shop.archive.verify().ok


def test_an_exported_version_brings_its_heads(shop, tmp_path):
    probe = read_probe(labelled(tmp_path / "a.npz", 0))
    (made,) = shop.learn_each([probe], FAST, actor="sato")
    shop.export(made, tmp_path / "out")
    (kept,) = heads_of(shop, made).values()
    written = load_head(tmp_path / "out" / "heads" / head_name(probe.digest).removeprefix("head."))
    assert written.classes == kept.classes == probe.classes and torch.equal(written.weight_CD, kept.weight_CD)
    assert not any(path.name.startswith("head.") for path in (tmp_path / "out").iterdir())


def test_a_set_that_changed_or_is_gone_is_not_probed_in_silence(shop, tmp_path):
    path = labelled(tmp_path / "a.npz", 0)
    entry = entry_of(read_probe(path), path)
    assert add_set(shop, entry, actor="sato") and not add_set(shop, entry, actor="sato")
    labelled(path, 7)
    with pytest.raises(RequestError, match="something else now"):
        shop.measure("v0")
    path.unlink()
    with pytest.raises(RequestError, match="cannot be read now"):
        shop.measure("v0")
    assert drop_set(shop, "a", actor="sato") == entry and probe_sets(shop) == ()
    with pytest.raises(RequestError, match="There are: none"):
        drop_set(shop, "a", actor="sato")
    report = shop.measure("v0")
    assert report.concepts is None
    assert any("perdure concepts add" in verdict.reason for verdict in report.verdicts)


def test_a_set_of_what_the_model_does_not_read_is_refused(shop, tmp_path):
    (tmp_path / "faq.csv").write_text("text,label\n" + "".join(f"{n},{n % 2}\n" for n in range(12)))
    with pytest.raises(RequestError, match="'faq' holds texts; this workspace's model reads images"):
        add_set(shop, entry_of(read_probe(tmp_path / "faq.csv"), tmp_path / "faq.csv"), actor="sato")
    assert probe_sets(shop) == ()


def test_the_recipe_tells_the_learning_rate_that_was_taken(shop, tmp_path):
    plan = encoder_tuning.plan_learning(shop, read_probe(labelled(tmp_path / "a.npz", 0)), {})
    assert plan.recipe()["config"]["learning_rate"] == 3e-5


def test_a_name_that_is_taken_is_not_given_to_another_set(shop, tmp_path):
    guard, harmless = (tmp_path / name / "train.npz" for name in ("guard", "harmless"))
    for seed, path in enumerate((guard, harmless)):
        path.parent.mkdir()
        labelled(path, seed)
    entry = entry_of(read_probe(guard), guard)
    add_set(shop, entry, actor="sato")
    other = read_probe(harmless)
    with pytest.raises(RequestError, match=r"called 'train'.*--name.*perdure concepts drop train"):
        add_set(shop, entry_of(other, harmless), actor="sato")
    assert probe_sets(shop) == (entry,)
    both = named_apart(shop, [read_probe(guard), other], [str(guard), str(harmless)])
    assert [probe.name for probe in both] == ["train", "harmless/train"]
    moved = guard.rename(tmp_path / "moved.npz")
    assert add_set(shop, entry_of(read_probe(moved), moved), actor="sato")
    assert [each.name for each in probe_sets(shop)] == ["moved"]


@pytest.fixture
def watched(shop, tmp_path):
    """Concepts found in 90 images, one of them protected."""
    np.savez(tmp_path / "seen.npz", x=np.load(labelled(tmp_path / "x.npz", 5, train=90))["x_train"])
    data = read_unlabelled(tmp_path / "seen.npz")
    encoder = encoder_of(shop, shop.version("v0"))
    origin = (str(tmp_path / "seen.npz"), "")
    found = find_concepts(encoder, data, DiscoverySettings(counts=(2, 3), least=10), origin=origin)
    save_found(found, shop.folder / FOLDER)
    write_marks(shop.folder / FOLDER, Marks(key=found.card.key, weights={found.card.concepts[0].id: 4.0}))
    return found


HELD = {**FAST, "regularizers": [{"kind": "feature_distance"}]}


def test_items_of_protected_concepts_alone_are_held_beside_each_batch(shop, watched, tmp_path, monkeypatch):
    given, real = {}, run.item_run

    def noted(*args, **more):
        given.update(more)
        return real(*args, **more)

    monkeypatch.setattr(run, "item_run", noted)
    monkeypatch.setattr(encoder_tuning, "ANCHORS", 20)
    probe = read_probe(labelled(tmp_path / "a.npz", 0))
    (made,) = shop.learn_each([probe], HELD, actor="sato")
    assert len(given["anchors"]) == 20 and set(given["anchor_weights"]) == {4.0}
    places = [data_of(watched).items.digests.index(digest) for digest in given["anchors"].items.digests]
    assert set(watched.assigned_N[places]) == {0}
    assert shop.archive.solved(made).notes["training"]["log"][-1]["step"] == 6  # 24 rows, batches of 8, two epochs


def test_what_is_protected_is_part_of_the_plan(shop, watched, tmp_path):
    probe = read_probe(labelled(tmp_path / "a.npz", 0))
    plan = encoder_tuning.plan_learning(shop, probe, HELD)
    rows = int((watched.assigned_N == 0).sum())
    assert plan.recipe()["anchors"] == {"key": watched.card.key, "weights": {"c1": 4.0}, "rows": rows}
    write_marks(shop.folder / FOLDER, Marks(key=watched.card.key, weights={"c1": 5.0}))
    assert encoder_tuning.plan_learning(shop, probe, HELD).digest != plan.digest
    for regularizers in ([], [{"kind": "l2sp"}, {"kind": "ewc"}, {"kind": "distillation", "on": "task"}]):
        unheld = encoder_tuning.plan_learning(shop, probe, {**FAST, "regularizers": regularizers})
        assert unheld.held is None and "anchors" not in unheld.recipe()


def test_what_takes_a_model_that_writes_is_refused(shop):
    with pytest.raises(RefusedError, match="perdure tune SET"):
        shop.plan([{"subject": "a", "prompt": "a is", "target_new": "b"}], Settings("memit", {}))
    with pytest.raises(RefusedError, match="an encoder"):
        shop.answering("v0", "hello")
    with pytest.raises(RefusedError, match="an encoder"):
        shop.plan_tuning(Task("t", "", (), (), ()), {})
    for refused in (
        shop.trace,
        lambda: shop.compare_skills("v0", "v0"),
        lambda: advise_tasks(shop, [], {}),
    ):
        with pytest.raises(RefusedError, match="perdure tune SET"):
            refused()


def test_settings_of_another_kind_of_model_are_refused(shop, tmp_path):
    probe = read_probe(labelled(tmp_path / "a.npz", 0))
    with pytest.raises(SettingError, match="rank"):
        list(shop.learn_each([probe], {"rank": "many"}, actor="sato"))


def test_the_terminal_tunes_and_probes(tmp_path, base, monkeypatch):
    invoke = CliRunner().invoke
    assert invoke(app, ["init", str(tmp_path / "shop"), "--model", str(base)]).exit_code == 0
    monkeypatch.chdir(tmp_path / "shop")
    learnt, other = (labelled(tmp_path / f"{name}.npz", seed) for seed, name in enumerate(("learnt", "other")))
    added = invoke(app, ["concepts", "add", str(other), "--json"])
    assert added.exit_code == 0 and '"added": true' in added.output
    assert "other" in invoke(app, ["concepts", "sets"]).output
    options = ["-s", "epochs=1", "-s", "batch_size=8"]
    planned = invoke(app, ["tune", str(learnt), *options, "--dry-run"])
    assert planned.exit_code == 0 and "nothing was computed" in planned.output
    refused = invoke(app, ["tune", str(learnt), "--pool"])
    assert isinstance(refused.exception, SettingError) and "--pool" in str(refused.exception)
    refused = invoke(app, ["tune", str(learnt), "-s", "many=3"])
    assert isinstance(refused.exception, SettingError)
    assert "learnt" not in invoke(app, ["concepts", "sets"]).output
    tuned = invoke(app, ["tune", str(learnt), *options, "--json"])
    assert tuned.exit_code == 0, tuned.output
    (made,) = json.loads(tuned.stdout)
    names = {each["name"]: each["tuned"] for each in made["report"]["concepts"]["sets"]}
    assert names == {"learnt": True, "other": False}
    assert invoke(app, ["report", "v1", "-o", str(tmp_path / "v1.html")]).exit_code == 0
    assert "What it recognises" in (tmp_path / "v1.html").read_text()
    assert json.loads(invoke(app, ["concepts", "drop", "other", "--json"]).stdout) == {"dropped": "other"}
