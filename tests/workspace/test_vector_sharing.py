"""Vectors between workspaces: who is trusted, which model they are of, where they are kept, what the ledger says."""

import json
import shutil
import stat
from dataclasses import replace

import pytest
import torch

import tiny
import vector_sample as sample
from perdure import Workspace
from perdure.deltas import Change, Delta
from perdure.errors import (
    IntegrityError,
    ModelError,
    RefusedError,
    RequestError,
    SettingError,
    UnknownNameError,
    WorkspaceError,
)
from perdure.measuring import skill_comparison
from perdure.models import layout_of
from perdure.requests.functions import Function, Pair
from perdure.signing import read_key
from perdure.vectors import VectorConfig, function_vector, strongest
from perdure.vectors.sharing import describe, read_vector, write_vector
from perdure.workspace import sharing, signers

CONFIG = VectorConfig(**sample.QUICK)
ACTOR = {"actor": "sato"}


@pytest.fixture(autouse=True)
def _known_skill(monkeypatch):
    monkeypatch.setattr(sharing, "traits_of", sample.traits_of)


@pytest.fixture
def file(tiny_shop, tmp_path):
    path = tmp_path / "plurals.vector.safetensors"
    sharing.export_vector(tiny_shop, tiny_shop.version("v0"), sample.function(), path, CONFIG, **ACTOR)
    return path


@pytest.fixture
def elsewhere(tmp_path, tiny_folder, quick_suite):
    """Another workspace of the same model, whose folder says other things about where it came from."""
    copied = shutil.copytree(tiny_folder, tmp_path / "copied")
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"transformers_version": "5.999", "_name_or_path": "x"}))
    return Workspace.init(tmp_path / "elsewhere", copied, actor="mori")


def actions(shop):
    return [(entry.action, entry.actor) for entry in shop.archive.log()]


def edited(shop):
    name = "model.layers.1.mlp.down_proj.weight"
    delta = Delta({name: Change(dense=torch.full((32, 48), 1e-2))})
    return shop.archive.commit(shop.version("v0"), delta, solved=delta, recipe={"editor": "x"}, **ACTOR)


def test_a_vector_goes_from_one_workspace_to_another_bit_for_bit(tiny_shop, file, elsewhere):
    assert signers.own_fingerprint(tiny_shop) not in signers.trusted_signers(elsewhere)
    with pytest.raises(RefusedError, match="not among the 0 trusted"):
        sharing.import_vector(elsewhere, file, actor="mori")
    signers.trust(elsewhere, signers.own_fingerprint(tiny_shop), actor="mori")
    found = sharing.import_vector(elsewhere, file, actor="mori")
    assert found.versions == ("v0",)
    model, _ = tiny_shop.load("v0")
    traits = sample.traits_of(None, sample.function(), None)
    heads = strongest(traits.effect_LH, 3)
    wanted_D = function_vector(layout_of(model), traits.mean_LHK, heads)
    assert torch.equal(found.shared.vector_D, wanted_D.float())
    assert found.shared.header.heads == tuple(heads)
    assert found.shared.header.in_context.model_dump() == {"n": 10, "clean": 9, "shuffled": 2}
    assert found.shared.header.figures.keys() == {"zero-shot", "shuffled"}
    assert len(file.read_bytes()) - 4 * 32 < 2048  # the header
    [kept] = sharing.shared_vectors(elsewhere)
    assert kept.data == file.read_bytes()
    assert actions(elsewhere)[-2:] == [("trust signer", "mori"), ("import vector", "mori")]
    assert ("export vector", "sato") in actions(tiny_shop)
    for shop in (tiny_shop, elsewhere):
        assert shop.archive.verify().problems == ()


def test_no_training_data_and_no_private_key_is_in_the_file(tiny_shop, file):
    data = file.read_bytes()
    assert sample.SECRET.encode() not in data
    key = (tiny_shop.folder / "keys/signing.pem").read_bytes()
    assert b"PRIVATE" in key
    raw = read_key(tiny_shop.folder / "keys/signing.pem").private_bytes_raw()
    for secret in (b"PRIVATE", key.splitlines()[1], raw, raw.hex().encode()):
        assert secret not in data


def test_the_same_export_has_the_same_bytes_and_the_name_of_the_signer_only_if_given(tiny_shop, file, tmp_path):
    again, named = tmp_path / "again.safetensors", tmp_path / "named.safetensors"
    base = tiny_shop.version("v0")
    sharing.export_vector(tiny_shop, base, sample.function(), again, CONFIG, actor="kato")
    assert again.read_bytes() == file.read_bytes()
    sharing.export_vector(tiny_shop, base, sample.function(), named, CONFIG, signer="Sato, Ltd.", **ACTOR)
    assert read_vector(named).header.signer == "Sato, Ltd."
    assert read_vector(file).header.signer is None


def test_the_key_is_private_made_once_and_stays_at_home(tiny_shop, file, tmp_path):
    path = tiny_shop.folder / "keys/signing.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    tiny_shop.export("v0", tmp_path / "out")
    tiny_shop.archive.collect_garbage()
    sharing.export_vector(
        tiny_shop, tiny_shop.version("v0"), sample.function(), tmp_path / "b.safetensors", CONFIG, **ACTOR
    )
    assert path.read_bytes() == before
    assert not [found for found in (tmp_path / "out").rglob("*") if found.suffix == ".pem"]
    for found in [*(tmp_path / "out").rglob("*"), *(tiny_shop.folder / "objects").rglob("*")]:
        assert found.is_dir() or before.splitlines()[1] not in found.read_bytes()
    path.chmod(0o644)
    with pytest.raises(ModelError, match="chmod 600"):
        signers.own_fingerprint(tiny_shop)


def test_before_the_first_export_there_is_no_key(tiny_shop):
    with pytest.raises(WorkspaceError, match="no signing key yet"):
        signers.own_fingerprint(tiny_shop)
    assert signers.trusted_signers(tiny_shop) == frozenset()


def test_trust_can_be_given_once_and_withdrawn(tiny_shop):
    finger = "ab" * 32
    signers.trust(tiny_shop, f"{finger[:32].upper()} {finger[32:]}", **ACTOR)
    signers.trust(tiny_shop, finger, **ACTOR)
    assert signers.trusted_signers(tiny_shop) == {finger}
    signers.trust(tiny_shop, finger, withdraw=True, **ACTOR)
    assert signers.trusted_signers(tiny_shop) == frozenset()
    assert [action for action, _ in actions(tiny_shop)][-2:] == ["trust signer", "distrust signer"]
    with pytest.raises(UnknownNameError, match="trusted signer"):
        signers.trust(tiny_shop, finger, withdraw=True, **ACTOR)
    with pytest.raises(SettingError, match="64 hexadecimal"):
        signers.trust(tiny_shop, finger[:16], **ACTOR)


def test_who_is_trusted_is_not_read_from_a_changed_ledger(tiny_shop, monkeypatch):
    signers.trust(tiny_shop, "ab" * 32, **ACTOR)
    forged = [replace(entry, details={"fingerprint": "cd" * 32}) for entry in tiny_shop.archive.log()]
    monkeypatch.setattr(tiny_shop.archive, "log", lambda: forged)
    with pytest.raises(IntegrityError, match="who is trusted is not known"):
        signers.trusted_signers(tiny_shop)


def test_a_vector_is_recognised_by_the_version_it_is_of(tiny_shop, tmp_path):
    child, path = edited(tiny_shop), tmp_path / "child.safetensors"
    shared = sharing.export_vector(tiny_shop, child, sample.function(), path, CONFIG, **ACTOR)
    base = sharing.origins_of(tiny_shop, [tiny_shop.version("v0")])["v0"]
    assert shared.header.model.structure == base.structure
    assert shared.header.model.weights != base.weights
    assert sharing.import_vector(tiny_shop, path, **ACTOR).versions == ("v1",)


def test_a_vector_of_other_weights_comes_in_only_if_asked_for(tiny_shop, file, elsewhere, tmp_path):
    other = Workspace.init(tmp_path / "other", tiny.llama(seed=3), tokenizer=tiny.tokenizer(), **ACTOR)
    signers.trust(other, signers.own_fingerprint(tiny_shop), **ACTOR)
    with pytest.raises(ModelError, match="same architecture with other weights"):
        sharing.import_vector(other, file, **ACTOR)
    assert sharing.shared_vectors(other) == []
    assert sharing.import_vector(other, file, other_weights=True, **ACTOR).versions == ()
    assert other.archive.log()[-1].details["other_weights"] is True
    deep = Workspace.init(tmp_path / "deep", tiny.llama(num_hidden_layers=5), tokenizer=tiny.tokenizer(), **ACTOR)
    signers.trust(deep, signers.own_fingerprint(tiny_shop), **ACTOR)
    with pytest.raises(ModelError, match="another architecture"):
        sharing.import_vector(deep, file, other_weights=True, **ACTOR)


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "..", "~/escaped", "a/b", "CON"])
def test_a_hostile_name_becomes_no_path(tiny_shop, file, tmp_path, name):
    hostile = tmp_path / "hostile.safetensors"
    shared = read_vector(file)
    about = shared.header.model_dump(exclude={"norm", "key", "signature"}) | {"name": name}
    write_vector(hostile, describe(shared.vector_D, **about).signed(read_key(tiny_shop.folder / "keys/signing.pem")))
    before = set(tmp_path.rglob("*"))
    found = sharing.import_vector(tiny_shop, hostile, **ACTOR)
    new = {path.relative_to(tiny_shop.folder).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert {path for path in new if not path.startswith(("perdure.sqlite", "tmp"))} == {
        "vectors",
        "vectors/shared",
        f"vectors/shared/{found.shared.digest}.vector.safetensors",
    }
    assert sharing.shared_vector(tiny_shop, name).header.name == name


def test_imported_vectors_are_found_by_name_and_by_hash_and_checked(tiny_shop, file):
    with pytest.raises(UnknownNameError, match="imported vector"):
        sharing.shared_vector(tiny_shop, "plurals")
    found = sharing.import_vector(tiny_shop, file, **ACTOR).shared
    assert sharing.import_vector(tiny_shop, file, **ACTOR).shared.digest == found.digest
    assert sharing.shared_vector(tiny_shop, "plurals").digest == found.digest
    assert sharing.shared_vector(tiny_shop, found.digest[:8]).digest == found.digest
    [kept] = (tiny_shop.folder / "vectors/shared").iterdir()
    moved = kept.rename(kept.with_name(f"{'0' * 64}.vector.safetensors"))
    with pytest.raises(IntegrityError, match="another hash"):
        sharing.shared_vectors(tiny_shop)
    data = bytearray(moved.read_bytes())
    data[-1] ^= 1
    moved.write_bytes(data)
    with pytest.raises(IntegrityError):
        sharing.shared_vectors(tiny_shop)


def test_an_unsigned_file_comes_in_only_if_asked_for(tiny_shop, file, tmp_path):
    shared, plain = read_vector(file), tmp_path / "plain.safetensors"
    about = shared.header.model_dump(exclude={"norm", "key", "signature"})
    write_vector(plain, describe(shared.vector_D, **about))
    with pytest.raises(RefusedError, match="not signed"):
        sharing.import_vector(tiny_shop, plain, **ACTOR)
    sharing.import_vector(tiny_shop, plain, allow_unsigned=True, **ACTOR)
    assert tiny_shop.archive.log()[-1].details["signer"] is None


def test_a_function_that_the_model_cannot_do_has_no_vector(tiny_shop, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "traits_of", skill_comparison.traits_of)
    asked = Function("random", tuple(Pair(input=f"{n}", output=f"{n * n}") for n in range(20)))
    path = tmp_path / "x.safetensors"
    config = VectorConfig(**sample.QUICK, clean=2, shuffled=2)
    with pytest.raises(RequestError, match="shows which heads carry it"):
        sharing.export_vector(tiny_shop, tiny_shop.version("v0"), asked, path, config, **ACTOR)
    assert not path.exists()
    assert not (tiny_shop.folder / "keys").exists()


def test_an_existing_file_is_not_replaced_and_the_ledger_says_nothing(tiny_shop, file):
    before, rows = file.read_bytes(), len(tiny_shop.archive.log())
    with pytest.raises(SettingError, match="exists"):
        sharing.export_vector(tiny_shop, tiny_shop.version("v0"), sample.function(), file, CONFIG, **ACTOR)
    assert file.read_bytes() == before
    assert len(tiny_shop.archive.log()) == rows


def test_once_there_are_members_an_admin_decides_on_trust(tiny_shop):
    tiny_shop.grant("sato", "admin", by="sato")
    tiny_shop.grant("mori", "requester", by="sato")
    with pytest.raises(RefusedError, match="requester and cannot trust a signer: that takes an admin"):
        signers.trust(tiny_shop, "ab" * 32, actor="mori")
    assert signers.trusted_signers(tiny_shop) == frozenset()
    signers.trust(tiny_shop, "ab" * 32, actor="sato")
    assert signers.trusted_signers(tiny_shop) == {"ab" * 32}
