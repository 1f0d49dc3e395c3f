"""Damage files and rows in every way; a read gives the true numbers or a named IntegrityError, never others."""

import os
import random
import shutil
import sqlite3

import pytest
import torch
from safetensors.torch import load_file, save_file

from perdure.errors import IntegrityError, PerdureError, UnsafeFileError, WorkspaceError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME
from perdure.workspace.manifest import Manifest, check_file_names, read_manifest


def places(shop, tiny):
    """One file of every kind, by kind."""
    with Archive.open(shop) as archive:
        v0, v1, v2 = archive.versions()

        def loose(name):
            return shop / "objects" / name[:2] / name

        report = archive._database.connection().execute("SELECT digest FROM reports").fetchone()[0]
        low_rank = v1.manifest.tensors[tiny.down.format(0)].hash
        xor = v2.manifest.tensors[tiny.down.format(1)].hash
        found = {
            "pack": next((shop / "objects" / "packs").iterdir()),
            "low_rank": loose(low_rank),
            "xor": loose(xor),
            "manifest": loose(v1.id),
            "base_manifest": loose(v0.id),
            "config": loose(v0.manifest.files["config.json"]),
            "solved": loose(v1.manifest.solved),
            "report": loose(report),
        }
        assert archive._store.listed(low_rank).reference is not None
        assert archive._store.listed(xor).reference is not None
        return found


def truncate(path, _other):
    os.truncate(path, path.stat().st_size // 2)


def cut_last(path, _other):
    os.truncate(path, path.stat().st_size - 1)


def empty(path, _other):
    os.truncate(path, 0)


def delete(path, _other):
    path.unlink()


def append(path, _other):
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def _flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def flip_first(path, _other):
    _flip(path, 0.0)


def flip_early(path, _other):
    _flip(path, 0.02)


def flip_middle(path, _other):
    _flip(path, 0.5)


def flip_last(path, _other):
    _flip(path, 1.0)


def zero_page(path, _other):
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)
    path.write_bytes(data)


def swap(path, other):
    aside = path.with_name("aside")
    path.rename(aside)
    shutil.copy(other, path)
    shutil.copy(aside, other)
    aside.unlink()


def nan(path, _other):
    try:
        tensors = load_file(path)
    except Exception:
        path.write_bytes(b'{"NaN":NaN}')
        return
    save_file({name: t.float().fill_(float("nan")).to(t.dtype) for name, t in tensors.items()}, path)


def link(path, _other):
    aside = path.parent.parent.parent / "outside"
    path.rename(aside)
    path.symlink_to(aside)


def folder(path, _other):
    path.unlink()
    path.mkdir()


DAMAGES = [
    truncate, cut_last, empty, delete, append, flip_first, flip_early, flip_middle, flip_last,
    zero_page, swap, nan, link, folder,
]  # fmt: skip
KINDS = ["pack", "low_rank", "xor", "manifest", "base_manifest", "config", "solved", "report"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_and_never_silent(shop, tmp_path, template, tiny, kind, damage):
    found = places(shop, tiny)
    path = found[kind]
    other = found["low_rank" if kind != "low_rank" else "xor"]
    damage(path, other)
    hit = 0
    with Archive.open(shop) as archive:
        verification = archive.verify()
        assert not verification.ok
        name, others = path.stem, other.name if damage is swap else path.stem
        assert any(name in problem for problem in verification.problems), verification.problems
        for version in archive.versions():
            truth = template.truth[version.name]
            try:
                tensors = archive.tensors(version)
                assert all(torch.equal(tensors[n], truth[n]) for n in truth)
                archive.checkout(version, tmp_path / version.name)
                written = load_file(tmp_path / version.name / "model.safetensors")
                assert all(torch.equal(written[n], truth[n]) for n in truth)
                archive.solved(version)
                archive.report(version)
            except IntegrityError as error:
                hit += 1
                assert version.name in str(error)
                assert name in str(error) or others in str(error)
                if kind not in ("solved", "report"):
                    assert not (tmp_path / version.name).exists()
        assert hit or (kind, damage) == ("pack", flip_last)  # a copy of a tensor that is read elsewhere


@pytest.mark.parametrize("damage", [truncate, flip_middle, delete, nan], ids=lambda damage: damage.__name__)
def test_a_rollback_to_a_damaged_version_is_refused(shop, tiny, damage):
    path = places(shop, tiny)["pack"]
    damage(path, path)
    with Archive.open(shop) as archive:
        with pytest.raises(IntegrityError, match="v0"):
            archive.rollback("staging", actor="mori")
        assert archive.aliases()["staging"].name == "v1"
        assert archive.log(1)[0].action == "promote"


def test_a_linked_folder_is_not_followed(shop, tiny):
    path = places(shop, tiny)["low_rank"]
    path.parent.rename(shop / "elsewhere")
    path.parent.symlink_to(shop / "elsewhere")
    with Archive.open(shop) as archive:
        with pytest.raises(IntegrityError, match="symbolic link"):
            archive.tensors(archive.version("v1"))
        assert not archive.verify().ok
    (shop / "tmp").rmdir()
    (shop / "tmp").symlink_to(shop / "elsewhere")
    with pytest.raises(IntegrityError, match="symbolic link"):
        Archive.open(shop)
    assert path.exists()


def test_nothing_is_written_through_a_link(shop, tiny, tmp_path):
    (tmp_path / "outside").mkdir()
    with Archive.open(shop) as archive:
        for byte in range(256):
            place = shop / "objects" / f"{byte:02x}"
            if not place.exists():
                place.symlink_to(tmp_path / "outside")
        with pytest.raises(IntegrityError, match="symbolic link"):
            for seed in range(30):
                archive.put_report(archive.version("v1"), {"n": seed}, actor="mori")
    assert list((tmp_path / "outside").iterdir()) == []


def edit(shop, *statements):
    """Change the database as somebody with a plain SQLite shell would."""
    connection = sqlite3.connect(shop / FILE_NAME)
    for name in [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'")]:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


ROW_DAMAGES = {
    "object lost": "DELETE FROM objects WHERE kind = 'tensor'",
    "object digest": "UPDATE objects SET digest = hash WHERE kind = 'tensor'",
    "object size": "UPDATE objects SET bytes = bytes + 1",
    "object reference": "UPDATE objects SET reference = NULL WHERE kind = 'tensor'",
    "object circle": "UPDATE objects SET reference = hash WHERE kind = 'tensor'",
    "object depth": "UPDATE objects SET depth = 7 WHERE kind = 'tensor'",
    "object path": "UPDATE objects SET hash = '../../../x' WHERE hash = (SELECT hash FROM objects WHERE kind = 'file')",
    "pack swapped names": "UPDATE packed SET hash = (SELECT hash FROM packed LIMIT 1) WHERE name LIKE '%down%'",
    "pack lost": "DELETE FROM packed",
    "pack header": "UPDATE packs SET header = id",
    "version parent": "UPDATE versions SET parent = NULL WHERE number = 2",
    "version id": "UPDATE versions SET id = replace(id, 'a', 'b') WHERE number = 1",
    "version requester": "UPDATE versions SET requester = 'sato' WHERE number = 1",
    "version number": "UPDATE versions SET number = 5 WHERE number = 2",
    "version lost": "DELETE FROM versions WHERE number = 2",
    "approver": "UPDATE approvals SET approver = 'mori'",
    "approved policy": "UPDATE approvals SET policy = 'weaker'",
    "approval lost": "DELETE FROM approvals",
    "move": "UPDATE alias_moves SET version = (SELECT id FROM versions WHERE number = 2) WHERE alias = 'production'",
    "move lost": "DELETE FROM alias_moves WHERE sequence = (SELECT MAX(sequence) FROM alias_moves)",
    "report": "UPDATE reports SET digest = replace(digest, '0', '1')",
    "ledger actor": "UPDATE ledger SET actor = 'sato' WHERE sequence = 2",
    "ledger time": "UPDATE ledger SET time = '2001-01-01T00:00:00+00:00' WHERE sequence = 3",
    "ledger details": "UPDATE ledger SET details = '{}' WHERE sequence = 4",
    "ledger not JSON": "UPDATE ledger SET details = '{' WHERE sequence = 4",
    "ledger row lost": "DELETE FROM ledger WHERE sequence = 3",
    "ledger tail lost": "DELETE FROM ledger WHERE sequence = (SELECT MAX(sequence) FROM ledger)",
    "trigger altered": "CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT 1; END",
}


@pytest.mark.parametrize("statement", ROW_DAMAGES.values(), ids=ROW_DAMAGES.keys())
def test_changed_rows_are_found(shop, template, statement):
    edit(shop, statement)
    with Archive.open(shop) as archive:
        problems = archive.verify().problems
        assert any("is missing; its rule" in problem for problem in problems)
        assert [problem for problem in problems if "its rule no longer holds" not in problem]
        try:
            for version in archive.versions():
                read = archive.tensors(version)
                assert all(torch.equal(read[n], t) for n, t in template.truth[version.name].items())
        except IntegrityError:
            pass


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE extra (x)", "ALTER TABLE approvals RENAME COLUMN policy TO polecy", "DROP TABLE alias_moves"],
)
def test_changed_tables_are_refused(shop, statement):
    edit(shop, statement)
    with pytest.raises(IntegrityError, match=r"does not belong|altered|missing"):
        Archive.open(shop)


def test_a_rewritten_ledger_is_found_by_a_head_noted_outside(shop):
    with Archive.open(shop) as archive:
        archive.record("measure", {"n": 1}, actor="mori")
        head = archive.verify().head
        assert archive.verify(head=head).ok
    edit(shop, "DELETE FROM ledger WHERE sequence = (SELECT MAX(sequence) FROM ledger)")
    with Archive.open(shop) as archive:
        assert any("noted outside" in problem for problem in archive.verify(head=head).problems)


@pytest.mark.parametrize("part", range(3))
def test_flipped_bits_in_the_database_never_change_an_answer(shop, template, tmp_path, part):
    def answers(archive):
        versions = archive.versions()
        return (
            [(v.name, v.id, v.requester, v.created, v.status, v.manifest) for v in versions],
            {alias: version.name for alias, version in archive.aliases().items()},
            {v.name: archive.approval(v, policy="policy-digest") for v in versions},
            [archive.report(v) for v in versions],
        )

    with Archive.open(shop) as archive:
        truth = answers(archive)
    clean = (shop / FILE_NAME).read_bytes()
    chance, refused = random.Random(part), 0
    for _ in range(30):
        data = bytearray(clean)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        for leftover in shop.glob(f"{FILE_NAME}*"):
            leftover.unlink()
        (shop / FILE_NAME).write_bytes(data)
        try:
            with Archive.open(shop) as archive:
                assert answers(archive) == truth
                tensors = archive.tensors(archive.version("v2"))
                assert all(torch.equal(tensors[n], t) for n, t in template.truth["v2"].items())
                archive.verify()
        except (IntegrityError, WorkspaceError):
            refused += 1
    assert refused < 30


@pytest.mark.parametrize("damage", [truncate, empty, flip_first, zero_page], ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_named(shop, damage):
    damage(shop / FILE_NAME, None)
    with pytest.raises(PerdureError, match=r"perdure\.sqlite"), Archive.open(shop) as archive:
        assert not archive.verify().ok
        archive.versions()


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "modeling.py", "weights.bin", "..", "", "config.json\0", ".bashrc"]
)
def test_side_files_outside_the_list_are_refused(name):
    with pytest.raises(UnsafeFileError):
        check_file_names([name])
    manifest = Manifest(tensors={}, files={name: "0" * 64}, parents=(), recipe={}, libraries={})
    with pytest.raises(UnsafeFileError, match="does not belong"):
        read_manifest(manifest.to_bytes())


def test_a_hostile_manifest_is_not_checked_out(shop, tmp_path):
    with Archive.open(shop) as archive:
        version = archive.version("v1")
        files = {"../escaped": version.manifest.files["config.json"]}
        hostile = version.manifest.model_copy(update={"files": files})
        stored = archive._store.put(hostile.to_bytes(), "manifest")
    edit(shop, f"UPDATE versions SET id = '{stored.hash}' WHERE number = 1")
    with Archive.open(shop) as archive:
        with pytest.raises((IntegrityError, UnsafeFileError)):
            archive.checkout(archive.version("v1"), tmp_path / "out")
        assert not archive.verify().ok
    assert not (tmp_path / "escaped").exists()
