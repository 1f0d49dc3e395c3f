"""What a pack holds: the documents of one version, the same bytes for the same state."""

import base64
import hashlib
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest
import torch
from cyclonedx.model.bom import Bom
from huggingface_hub import ModelCard

from perdure.content import digest_bytes
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import IntegrityError, SettingError, WorkspaceError
from perdure.evidence import check_pack, export_pack
from perdure.evidence.card import plain
from perdure.evidence.facts import facts_of, local_paths, without_folders
from perdure.evidence.statement import pre_authentication
from perdure.signing import is_signed, parse_public, read_key


def export(shop, target, ref="v1"):
    return export_pack(shop, shop.version(ref), target, page="<p>page</p>", actor="sato")


def second(shop, recipe=None):
    """A version v2 on v1, with v1's report under its own name."""
    v1 = shop.version("v1")
    name = next(name for name, record in v1.manifest.tensors.items() if len(record.shape) == 2)
    rows, columns = v1.manifest.tensors[name].shape
    delta = Delta({name: Change(LowRank(torch.ones(rows, 1) * 1e-3, torch.ones(1, columns)))})
    v2 = shop.archive.commit(v1, delta, solved=delta, recipe=recipe or {"editor": "rome"}, actor="abe")
    report = {**shop.archive.report(v1), "version": "v2", "version_id": v2.id, "parent": v1.id}
    shop.archive.put_report(v2, report, actor="abe")
    return shop.version("v2")


def test_a_pack_names_the_triple_that_was_approved(shop, built):
    version = shop.version("v1")
    manifest = json.loads((built.pack / "manifest.json").read_text())
    about = manifest["predicate"]
    given = shop.approvals(version)[-1].approval
    assert (about["version"], about["report"], about["policy"]) == (version.id, given.report, given.policy)
    assert about["approved_by"] == ["mori"]
    assert about["lineage"] == [shop.version("v0").id, version.id]
    assert about["head"] == shop.archive.log()[-1].hash
    assert {one["name"] for one in manifest["subject"]} == {
        "README.md", "bom.cdx.json", "report.json", "report.html", "policy.toml", "approvals.json", "ledger.jsonl",
        "signer.pem", "versions/v0.json", "versions/v1.json",
    }  # fmt: skip
    for one in manifest["subject"]:
        assert hashlib.sha256((built.pack / one["name"]).read_bytes()).hexdigest() == one["digest"]["sha256"]
    assert digest_bytes((built.pack / "versions/v1.json").read_bytes()) == version.id


def test_the_signature_is_dsse_over_the_manifest(built):
    envelope = json.loads((built.pack / "manifest.dsse.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    assert payload == (built.pack / "manifest.json").read_bytes()
    public = parse_public((built.pack / "signer.pem").read_bytes())
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    assert pre_authentication("application/vnd.in-toto+json", payload) == signed
    assert is_signed(public, base64.b64decode(envelope["signatures"][0]["sig"]).hex(), signed)


def test_dsse_encodes_as_its_protocol_says():
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_same_state_gives_the_same_bytes(shop, tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.evidence.packing.now", lambda: "2030-01-01T00:00:00+00:00")
    first, again = (export(shop, tmp_path / name).path.read_bytes() for name in ("a.zip", "b.zip"))
    assert first == again
    monkeypatch.setattr("perdure.evidence.packing.now", lambda: "2031-01-01T00:00:00+00:00")
    later = export(shop, tmp_path / "c.zip").path
    with zipfile.ZipFile(tmp_path / "a.zip") as before, zipfile.ZipFile(later) as after:
        differing = {name for name in before.namelist() if before.read(name) != after.read(name)}
        assert before.namelist() == after.namelist()
    assert differing == {"manifest.json", "manifest.dsse.json"}


def test_a_pack_tells_no_place_and_no_secret(shop, built, tmp_path):
    key = read_key(shop.folder / "keys" / "signing.pem").private_bytes_raw()
    pem = (shop.folder / "keys" / "signing.pem").read_text().splitlines()[1]
    for path in built.pack.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(Path.home()).encode() + b"/" not in data and str(tmp_path.parent.parent).encode() not in data
            assert pem.encode() not in data and key not in data and key.hex().encode() not in data
    assert b'"source":"tiny-llama' in (built.pack / "versions/v0.json").read_bytes()


def test_the_card_is_one_that_the_hub_reads(built):
    card = ModelCard.load(built.pack / "README.md")
    assert card.data.library_name == "transformers"
    assert (
        card.data.to_dict()["perdure"]["version"]
        == json.loads((built.pack / "manifest.json").read_text())["predicate"]["version"]
    )
    text = card.content
    for part in ("## What was changed", "## Gains", "## Losses", "## Who approved", "## Limits", "## Gates"):
        assert part in text
    assert "| 95% interval | n |" in text and "approved by mori" in text and "memit with restraint prune" in text
    assert "Manila" in text and "<b>" not in text.replace("\\<b", "") and "[knows](" not in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a | b\n# c", "a \\| b \\# c"),
        ("<script>x</script>", "\\<script\\>x\\</script\\>"),
        ("[x](http://y) www.z.example", "\\[x\\](http\\://y) www\\.z.example"),
        ("a\u202etxt\x00`b`", "a txt \\`b\\`"),
        ("tiny-llama 1.5: fine (95%)", "tiny-llama 1.5: fine (95%)"),
    ],
)
def test_what_people_wrote_stays_text(given, shown):
    assert plain(given) == shown


def test_the_bill_of_materials_has_the_pedigree(shop, tmp_path):
    second(shop)
    export(shop, tmp_path / "pack", "v2")
    text = json.loads((tmp_path / "pack/bom.cdx.json").read_text())
    assert text["specVersion"] == "1.6"
    bom = Bom.from_json(text)
    model = bom.metadata.component
    line = [shop.version(name) for name in ("v0", "v1", "v2")]
    assert model.type.value == "machine-learning-model" and model.version == "v2"
    assert next(iter(model.hashes)).content == line[2].id
    assert {one.version for one in model.pedigree.ancestors} == {"v0", "v1"}
    steps = [json.loads(patch.diff.text.content) for patch in model.pedigree.patches]
    assert {step["parent"]: step["version"] for step in steps} == {line[0].id: line[1].id, line[1].id: line[2].id}
    assert {step["delta"] for step in steps} == {line[1].manifest.solved, line[2].manifest.solved}
    facts = line[1].manifest.recipe["facts"]["digest"]
    hashes = {found.content for one in bom.components for found in one.hashes}
    assert {facts, line[1].manifest.recipe["moments_text"]} <= hashes
    assert {"torch", "transformers", "perdure"} <= {one.name for one in bom.components}


def test_what_nobody_approved_says_so(shop, tmp_path):
    second(shop)
    found = export(shop, tmp_path / "pack", "v2")
    assert found.about.approved_by == ()
    checked = check_pack(tmp_path / "pack", shop=shop)
    assert checked.ok and "nobody's approval" in checked.notes[0]
    assert "**not approved**" in (tmp_path / "pack/README.md").read_text()


def test_an_approval_over_an_earlier_report_is_void(shop, tmp_path):
    report = {**shop.archive.report(shop.version("v1")), "seconds": {"again": 1.0}}
    shop.archive.put_report(shop.version("v1"), report, actor="kato")
    assert export(shop, tmp_path / "pack").about.approved_by == ()
    [decision] = json.loads((tmp_path / "pack/approvals.json").read_text())["decisions"]
    assert decision["void"] == "it was given over another report"
    assert check_pack(tmp_path / "pack", shop=shop).ok


def test_a_rejection_voids_the_approval(shop, tmp_path):
    shop.reject("v1", actor="abe", reason="wrong after all")
    assert export(shop, tmp_path / "pack").about.approved_by == ()
    assert [one.decision for one in facts_of(shop, shop.version("v1")).decisions] == ["approved", "rejected"]
    assert check_pack(tmp_path / "pack", shop=shop).ok


def test_the_policy_of_the_approval_stays_with_it(shop, tmp_path):
    before = shop.policy.digest
    text = (shop.folder / "policy.toml").read_text().replace("learnt=0", "learnt=0.5")
    (shop.folder / "policy.toml").write_text(text)
    about = export(shop, tmp_path / "pack").about
    assert (about.policy, about.policy_in_force, about.approved_by) == (before, shop.policy.digest, ("mori",))
    checked = check_pack(tmp_path / "pack", shop=shop)
    assert checked.ok and any("policy" in note for note in checked.notes)


def test_too_few_approvers_are_noted(shop, tmp_path):
    text = (shop.folder / "policy.toml").read_text() + "[approval.required]\nproduction = 2\n"
    (shop.folder / "policy.toml").write_text(text)
    shop.approve("v1", actor="abe")
    export(shop, tmp_path / "pack")
    assert check_pack(tmp_path / "pack", shop=shop).notes == (
        "the policy asks for 2 approvers before production; 1 counts",
    )
    shop.approve("v1", actor="mori")
    export(shop, tmp_path / "both")
    assert check_pack(tmp_path / "both", shop=shop).about.approved_by == ("abe", "mori")
    assert check_pack(tmp_path / "both", shop=shop).notes == ()


def test_places_in_old_documents_are_told(shop, tmp_path):
    second(shop, recipe={"editor": "rome", "file": "/home/kato/facts.jsonl"})
    assert export(shop, tmp_path / "pack", "v2").paths == ("versions/v2.json: /home/kato/facts.jsonl",)
    assert list(local_paths(b'{"a": ["C:\\\\x", "a/b", "/x", {"b": "file:///x"}]}')) == ["C:\\x", "file:///x"]
    assert without_folders("/home/kato/base/ with the adapter C:\\a\\b") == "base with the adapter b"
    assert without_folders("owner/name") == "owner/name"


def test_what_was_never_measured_has_no_evidence(shop, tmp_path):
    with pytest.raises(WorkspaceError, match="run perdure measure v0"):
        export(shop, tmp_path / "pack", "v0")


def test_a_target_is_never_replaced(shop, tmp_path):
    (tmp_path / "there.zip").write_bytes(b"")
    with pytest.raises(SettingError, match="exists"):
        export(shop, tmp_path / "there.zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").touch()
    with pytest.raises(SettingError, match="not an empty folder"):
        export(shop, tmp_path / "folder")


def test_a_damaged_ledger_gives_no_pack(shop, tmp_path):
    shop.archive.close()
    with sqlite3.connect(shop.folder / "perdure.sqlite") as connection:
        connection.execute("DROP TRIGGER ledger_no_update")
        connection.execute("UPDATE ledger SET actor = 'eve' WHERE action = 'policy' AND sequence > 3")
    with pytest.raises(IntegrityError, match="was changed"):
        export(shop, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_file_changed_by_hand_is_not_the_policy_in_force_once_there_are_members(shop, tmp_path):
    shop.grant("sato", "admin", by="sato")
    path, before = shop.folder / "policy.toml", shop.policy.digest
    path.write_text(path.read_text().replace("learnt=0", "learnt=0.5"))
    about = export(shop, tmp_path / "pack").about
    assert (about.policy, about.policy_in_force) == (before, shop.policy.digest) == (before, before)
