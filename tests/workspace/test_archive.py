import json
import os
import stat
import threading
import time

import pytest
import torch
from safetensors import safe_open

from perdure.content import scratch_folder
from perdure.deltas import Change, Delta, LowRank, changed
from perdure.errors import EditError, ModelError, SettingError, UnknownNameError, WorkspaceError
from perdure.models.checkpoint import Checkpoint
from perdure.workspace import checkout, database, ledger
from perdure.workspace.archive import Archive


def test_versions_and_their_names(archive, template):
    versions = archive.versions()
    assert [version.name for version in versions] == ["v0", "v1", "v2"]
    assert [version.status for version in versions] == ["base", "approved", "candidate"]
    v1 = archive.version("v1")
    for ref in ("v1", "staging", v1.id, v1.id[:6]):
        assert archive.version(ref) == v1
    assert archive.version("latest").name == "v2"
    assert v1.parent == template.ids["v0"]
    assert v1.requester == "mori"
    assert [v.name for v in archive.lineage(archive.version("v2"))] == ["v0", "v1", "v2"]


@pytest.mark.parametrize("ref", ["v9", "v01", "V1", "", "../v1", "produktion", "ab", "v" + "9" * 30, "v١", "\ud800"])
def test_unknown_refs_are_named(archive, ref):
    with pytest.raises(UnknownNameError, match="Unknown version"):
        archive.version(ref)


def test_tensors_are_base_plus_delta_bit_for_bit(archive, tiny, template):
    v0, v1, v2 = archive.versions()
    name, other = tiny.down.format(0), tiny.down.format(1)
    base = Checkpoint.open(template.checkpoint)
    assert all(torch.equal(archive.tensors(v0)[n], base.tensor(n)) for n in base.entries)
    expected = changed(base.tensor(name), tiny.low_rank().changes[name])
    assert torch.equal(archive.tensors(v1, [name])[name], expected)
    assert torch.equal(archive.tensors(v2)[other], changed(base.tensor(other), tiny.dense().changes[other]))
    assert list(archive.tensors(v2, [name])) == [name]
    with pytest.raises(UnknownNameError, match="tensor"):
        archive.tensors(v2, ["nothing"])


def test_writing_to_a_tensor_changes_no_file(archive):
    v0 = archive.version("v0")
    tensors = archive.tensors(v0)
    for tensor in tensors.values():
        tensor.zero_()
    assert archive.verify().ok
    assert all(tensor.any() for tensor in archive.tensors(v0).values())


def test_names_of_equal_bits_do_not_share_memory(archive):
    tensors = archive.tensors(archive.version("v0"))
    places = {tensors[f"model.layers.{layer}.norm.weight"].data_ptr() for layer in range(3)}
    assert len(places) == 3


def test_solved_delta_keeps_its_keys(archive, tiny):
    solved = archive.solved(archive.version("v1"))
    expected = tiny.low_rank()
    assert torch.equal(solved.keys[tiny.down.format(0)], expected.keys[tiny.down.format(0)])
    assert solved.notes == {"seed": 0}
    assert not archive.solved(archive.version("v0"))


def test_the_same_edit_gives_the_same_version(archive, tiny):
    v0 = archive.version("v0")
    again = archive.commit(v0, tiny.low_rank(), solved=tiny.low_rank(), recipe={"editor": "rome"}, actor="tanaka")
    assert again == archive.version("v1")
    assert again.requester == "mori"
    assert len(archive.versions()) == 3
    last = archive.log(1)[0]
    assert (last.action, last.actor, last.details["name"]) == ("commit again", "tanaka", "v1")
    assert archive.verify().ok


def test_ids_do_not_depend_on_time_or_place(template, tiny, tmp_path):
    tiny.build(tmp_path / "other", template.checkpoint)
    with Archive.open(tmp_path / "other") as other:
        assert {version.name: version.id for version in other.versions()} == template.ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_comes_back(tmp_path, tiny, dtype):
    checkpoint = Checkpoint.open(tiny.write_checkpoint(tmp_path / "checkpoint", dtype, shards=2))
    with Archive.create(tmp_path / "shop", checkpoint, actor="mori", source="tiny") as archive:
        version, name = archive.version("v0"), tiny.down.format(0)
        for seed in range(3):
            delta = tiny.low_rank(seed=seed) + tiny.dense(layer=2, seed=seed)
            before = archive.tensors(version, delta.changes)
            version = archive.commit(version, delta, solved=delta, recipe={"n": seed}, actor="mori")
            after = archive.tensors(version)
            assert all(torch.equal(after[n], changed(before[n], delta.changes[n])) for n in delta.changes)
        assert after[name].dtype == dtype
        assert archive.verify().ok
        archive.checkout(version, tmp_path / "out")
    out = Checkpoint.open(tmp_path / "out")
    assert all(torch.equal(out.tensor(n), after[n]) for n in checkpoint.entries)


def test_checkout_is_an_ordinary_folder(archive, tmp_path, template):
    archive.checkout(archive.version("v1"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as stream:
        assert stream.metadata() == {"format": "pt"}
        truth = template.truth["v1"]
        assert set(stream.keys()) == set(truth)
        assert all(torch.equal(stream.get_tensor(name), truth[name]) for name in truth)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"tokens": ["ä"]}'


def test_checkout_shards_large_models(archive, tmp_path, template, monkeypatch):
    monkeypatch.setattr(checkout, "SHARD_BYTES", 20_000)
    archive.checkout(archive.version("v2"), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    out = Checkpoint.open(tmp_path / "out")
    assert all(torch.equal(out.tensor(n), t) for n, t in template.truth["v2"].items())


def test_checkout_overwrites_nothing(archive, tmp_path):
    v0 = archive.version("v0")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for target in ("full", "full/mine.txt", "link"):
        with pytest.raises(SettingError, match="not an empty folder"):
            archive.checkout(v0, tmp_path / target)
    with pytest.raises(WorkspaceError, match="own folders"):
        archive.checkout(v0, archive.folder / "objects" / "out")
    archive.checkout(v0, tmp_path / "empty")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_storage_of_a_low_rank_change(archive):
    v0, v1, _ = archive.versions()
    own = sum(
        (archive.folder / "objects" / h[:2] / h).stat().st_size
        for h in {v1.id, v1.manifest.solved}
        | {r.hash for n, r in v1.manifest.tensors.items() if v0.manifest.tensors[n] != r}
    )
    storage = archive.storage(v1)
    assert storage.added_bytes == own
    assert storage.model_bytes == 4 * (64 * 32 + 3 * 32 * 128 + 3 * 32)
    assert storage.ratio > 5
    assert archive.storage(v0).added_bytes > storage.model_bytes


def test_create_refuses_a_folder_in_use(template, tmp_path):
    checkpoint = Checkpoint.open(template.checkpoint)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "objects").mkdir()
    with pytest.raises(WorkspaceError, match="not empty"):
        Archive.create(tmp_path / "used", checkpoint, actor="mori", source="tiny")
    with pytest.raises(WorkspaceError, match="holds a workspace already"):
        Archive.create(template.folder, checkpoint, actor="mori", source="tiny")
    with pytest.raises(WorkspaceError, match="not a folder"):
        Archive.create(template.checkpoint / "config.json", checkpoint, actor="mori", source="tiny")


def test_create_refuses_nan(tiny, tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="NaN"):
        Archive.create(tmp_path / "shop", Checkpoint.open(folder), actor="mori", source="tiny")
    with pytest.raises(WorkspaceError, match="did not finish"):
        Archive.open(tmp_path / "shop")


def test_open_says_what_is_missing(tmp_path, shop):
    with pytest.raises(WorkspaceError, match="holds no workspace"):
        Archive.open(tmp_path)
    with Archive.open(shop) as archive:
        archive._database.connection().execute(f"PRAGMA user_version = {database.SCHEMA + 1}")
    with pytest.raises(WorkspaceError, match="newer perdure"):
        Archive.open(shop)


def test_only_the_owner_can_look_in(archive):
    assert stat.S_IMODE(archive.folder.stat().st_mode) & 0o700 == 0o700
    objects = archive.folder / "objects"
    for path in [objects, *objects.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((archive.folder / database.FILE_NAME).stat().st_mode) == 0o600


def test_a_new_folder_is_private(template, tmp_path):
    checkpoint = Checkpoint.open(template.checkpoint)
    Archive.create(tmp_path / "new", checkpoint, actor="mori", source="tiny").close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("delta", "kind", "words"),
    [
        (Delta({"nothing": Change(dense=torch.zeros(2, 2))}), SettingError, "does not have"),
        (
            Delta({"model.embed_tokens.weight": Change(dense=torch.zeros(2, 2))}),
            SettingError,
            "shape",
        ),
        (
            Delta({"model.embed_tokens.weight": Change(dense=torch.full((64, 32), float("nan")))}),
            SettingError,
            "NaN",
        ),
        (
            Delta({"model.embed_tokens.weight": Change(LowRank(torch.full((64, 1), 3e38), torch.full((1, 32), 9.0)))}),
            EditError,
            "overflows",
        ),
    ],
)  # fmt: skip
def test_commit_refuses_what_does_not_fit(archive, delta, kind, words):
    with pytest.raises(kind, match=words):
        archive.commit(archive.version("v0"), delta, solved=Delta(), recipe={}, actor="mori")
    assert len(archive.versions()) == 3
    assert archive.verify().ok


@pytest.mark.parametrize("recipe", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_commit_refuses_recipes_that_are_not_json(archive, recipe, tiny):
    with pytest.raises(SettingError):
        archive.commit(archive.version("v0"), tiny.low_rank(), solved=Delta(), recipe=recipe, actor="mori")


@pytest.mark.parametrize("actor", ["", "  ", "a\nb", "x" * 201, "mo\u200bri", "\ud800"])
def test_actors_need_a_printable_name(archive, actor):
    with pytest.raises(SettingError, match="actor"):
        archive.record("measure", {}, actor=actor)


def test_references_stay_short_and_then_stand_alone(archive, tiny):
    version = archive.version("v2")
    depths = []
    for seed in range(10, 20):
        delta = tiny.low_rank(layer=2, seed=seed)
        version = archive.commit(version, delta, solved=delta, recipe={"n": seed}, actor="mori")
        depths.append(archive._store.listed(version.manifest.tensors[tiny.down.format(2)].hash).depth)
    assert depths == [1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert archive.verify().ok


def test_undoing_an_edit_stores_no_tensor(archive, tiny):
    v0, v1, _ = archive.versions()
    name = tiny.down.format(0)
    back = archive.tensors(v0, [name])[name].double() - archive.tensors(v1, [name])[name].double()
    undo = Delta({name: Change(dense=back)})
    version = archive.commit(v1, undo, solved=undo, recipe={"undo": "v1"}, actor="mori")
    assert version.manifest.tensors == v0.manifest.tensors
    assert archive.verify().ok


def test_a_damaged_tensor_is_healed_when_it_is_made_again(archive, tiny):
    v0, v1, v2 = archive.versions()
    name = v1.manifest.tensors[tiny.down.format(0)].hash
    path = archive.folder / "objects" / name[:2] / name
    path.unlink()
    assert not archive.verify().ok
    archive.commit(v0, tiny.low_rank(), solved=Delta(), recipe={"again": True}, actor="mori")
    assert archive.verify().ok
    archive.tensors(v2)


def test_collecting_garbage_moves_only_what_nobody_needs(archive):
    before = archive.collect_garbage()
    assert before.quarantined == ()
    stray = archive.folder / "objects" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"left by a crash")
    assert archive.verify().unlisted == 1
    report = archive.collect_garbage()
    assert report.quarantined == (stray.name,)
    assert report.bytes == 15
    assert (archive.folder / "quarantine" / stray.name).read_bytes() == b"left by a crash"
    verification = archive.verify()
    assert verification.ok
    assert verification.unlisted == 0


def test_side_files_and_report_digest(archive, template):
    v0, v1, _ = archive.versions()
    assert archive.side_files(v0) == {
        name: (template.checkpoint / name).read_bytes() for name in ("config.json", "tokenizer.json")
    }
    assert archive.report_digest(v0) is None
    digest = archive.report_digest(v1)
    assert archive.put_report(v1, {"retention": 0.99}, actor="mori") == digest


def test_sweeping_spares_the_folders_of_readers(shop):
    (shop / "tmp" / "left").write_bytes(b"x")
    for name in ("live", "old"):
        (shop / "tmp" / name).mkdir()
    os.utime(shop / "tmp" / "old", (0, 0))
    with Archive.open(shop):
        assert [path.name for path in (shop / "tmp").iterdir()] == ["live"]


def test_small_values_are_remembered(archive):
    archive.remember("sigma_max", "abc", {"value": 3.5})
    archive.remember("sigma_max", "abc", {"value": 4.5})
    assert archive.recall("sigma_max", "abc") == {"value": 4.5}
    assert archive.recall("sigma_max", "abd") is None
    archive._database.connection().execute("UPDATE remembered SET value = '{\"value\":9.5}'")
    assert archive.recall("sigma_max", "abc") is None


def test_shallow_verification_sees_presence_and_size(archive, tiny):
    assert archive.verify(deep=False).ok
    name = archive.version("v1").manifest.tensors[tiny.down.format(0)].hash
    os.truncate(archive.folder / "objects" / name[:2] / name, 50)
    assert not archive.verify(deep=False).ok


def test_a_clock_that_runs_backwards_breaks_nothing(archive, monkeypatch):
    times = iter(["2031-01-01T00:00:00+00:00", "1999-01-01T00:00:00+00:00"])
    monkeypatch.setattr(ledger, "now", lambda: next(times))
    archive.record("measure", {"n": 1}, actor="mori")
    archive.record("measure", {"n": 2}, actor="mori")
    assert [entry.details["n"] for entry in archive.log(2)] == [1, 2]
    assert archive.verify().ok


def test_a_version_of_another_workspace_is_refused(archive, tiny, tmp_path):
    checkpoint = Checkpoint.open(tiny.write_checkpoint(tmp_path / "c", torch.bfloat16))
    with Archive.create(tmp_path / "other", checkpoint, actor="mori", source="x") as other:
        foreign = other.version("v0")
    with pytest.raises(WorkspaceError, match="no version of"):
        archive.commit(foreign, tiny.low_rank(), solved=Delta(), recipe={}, actor="mori")


def test_a_damaged_tensor_is_healed_when_the_same_version_is_made_again(archive, tiny):
    v0, v1 = archive.version("v0"), archive.version("v1")
    name = v1.manifest.tensors[tiny.down.format(0)].hash
    path = archive._store.path(name)
    leaning = tiny.low_rank(seed=5)
    archive.commit(v1, leaning, solved=leaning, recipe={"n": 5}, actor="mori")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert not archive.verify().ok
    delta = tiny.low_rank()
    assert archive.commit(v0, delta, solved=delta, recipe={"editor": "rome"}, actor="mori") == v1
    assert archive.verify().ok


def test_opening_leaves_alone_what_is_worked_in(archive):
    old = time.time() - 7200
    with scratch_folder(archive.folder / "tmp") as used:
        left = archive.folder / "tmp" / "left"
        left.mkdir()
        for folder in (used, left):
            os.utime(folder, (old, old))
        Archive.open(archive.folder).close()
        assert used.is_dir() and not left.exists()
    assert not used.exists()


def test_connections_of_threads_that_ended_are_closed(archive):
    for _ in range(5):
        thread = threading.Thread(target=archive.versions)
        thread.start()
        thread.join()
    assert len(archive._database._opened) <= 2
