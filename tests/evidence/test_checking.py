"""Checking a pack: every change is found and named, also by somebody who signs anew."""

import json
import random
import shutil
import zipfile

import pytest
from forging import STRANGER, reseal, rewrite

from perdure import Workspace
from perdure.content import canonical_json, digest_bytes, digest_json
from perdure.errors import PerdureError, SettingError
from perdure.evidence import check_pack, export_pack
from perdure.evidence.packing import ALWAYS
from perdure.evidence.reading import read_files
from perdure.signing import fingerprint, public_part
from perdure.workspace.signers import own_fingerprint, trust

FILES = sorted({*ALWAYS, "versions/v0.json", "versions/v1.json"})
OTHERS = fingerprint(public_part(STRANGER))


def rows_of(pack):
    return [json.loads(line) for line in (pack / "ledger.jsonl").read_text().splitlines()]


def write_rows(pack, rows, *, rechained=False):
    """Write rows of a ledger; rechained, with the hashes that hide the change."""
    for before, row in zip([None, *rows], rows, strict=False):
        if rechained:
            row["previous"] = before["hash"] if before else row["previous"]
            head = [row[name] for name in ("previous", "sequence", "time", "actor", "action")]
            row["hash"] = digest_json([*head, row["details"]])
    (pack / "ledger.jsonl").write_text("".join(f"{canonical_json(row)}\n" for row in rows))
    return rows[-1]["hash"]


def place_of(rows, action):
    return next(place for place, row in enumerate(rows) if row["action"] == action)


def test_an_untouched_pack_is_sound(shop, pack, tmp_path):
    alone = check_pack(pack)
    assert alone.ok and not alone.signer_known
    assert "was not checked" in alone.notes[0]
    here = check_pack(pack, shop=shop, head=shop.archive.log()[-1].hash)
    assert here.ok and here.signer_known and not here.notes
    assert check_pack(pack, key=own_fingerprint(shop)).signer_known
    assert check_pack(pack, key=str(pack / "signer.pem")).ok
    packed = export_pack(shop, shop.version("v1"), tmp_path / "v1.zip", page="x", actor="sato")
    assert check_pack(packed.path, shop=shop).ok


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(pack, name):
    data = bytearray((pack / name).read_bytes())
    data[len(data) // 2] ^= 1
    (pack / name).write_bytes(data)
    assert any(problem.startswith(f"files: {name} was changed") for problem in check_pack(pack).problems)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(pack, name):
    (pack / name).unlink()
    assert f"files: {name} is missing" in check_pack(pack).problems


def test_a_file_too_many_is_named(pack):
    (pack / "extra.html").write_text("<p>all gates pass</p>")
    assert [problem for problem in check_pack(pack).problems if "extra.html does not belong" in problem]


def test_a_changed_manifest_is_no_longer_signed(pack):
    rewrite(pack, "manifest.json", lambda value: value | {"predicate": value["predicate"] | {"approved_by": ["abe"]}})
    problems = check_pack(pack).problems
    assert any("signature: it signs another manifest" in problem for problem in problems)
    assert any("approvals: the manifest says approved by abe, the ledger mori" in problem for problem in problems)


@pytest.mark.parametrize("change", ["payload", "keyid", "sig", "none", "garbage"])
def test_a_signature_that_is_none_is_named(pack, change):
    path = pack / "manifest.dsse.json"
    if change == "none":
        path.unlink()
    elif change == "garbage":
        path.write_text("{}")
    elif change == "payload":
        rewrite(pack, path.name, lambda value: value | {"payload": "e30="})
    else:
        other = "0" * 64 if change == "keyid" else "AAAA"
        rewrite(pack, path.name, lambda value: value | {"signatures": [value["signatures"][0] | {change: other}]})
    [problem] = check_pack(pack).problems
    assert problem.startswith("signature: ")


def test_who_signs_anew_is_not_whom_one_trusts(shop, pack):
    expected = own_fingerprint(shop)
    reseal(pack)
    assert check_pack(pack).ok and not check_pack(pack).signer_known
    assert check_pack(pack, key=expected).problems == (f"signature: the signer is {OTHERS}, not {expected}",)
    assert "does not trust the signer" in check_pack(pack, shop=shop).problems[0]
    trust(shop, OTHERS, actor="sato")
    assert check_pack(pack, shop=shop).ok


def test_a_key_that_is_none_is_refused(pack):
    with pytest.raises(SettingError, match="64 hexadecimal digits"):
        check_pack(pack, key="618d")


def test_an_altered_row_breaks_its_hash(pack):
    rows = rows_of(pack)
    place = place_of(rows, "approve")
    rows[place]["details"]["approver"] = "eve"
    write_rows(pack, rows)
    assert (
        f"ledger: row {rows[place]['sequence']} was changed; its hash does not match"
        in check_pack(reseal(pack)).problems
    )


def test_a_row_altered_with_its_hash_breaks_the_chain(pack):
    rows = rows_of(pack)
    place = place_of(rows, "report")
    kept = [dict(row) for row in rows]
    rows[place]["actor"] = "eve"
    write_rows(pack, rows, rechained=True)
    changed = rows_of(pack)
    write_rows(pack, [*kept[:place], changed[place], *kept[place + 1 :]])
    problems = check_pack(reseal(pack)).problems
    assert f"ledger: row {kept[place + 1]['sequence']} does not follow the row before it" in problems


def test_a_row_left_out_is_missed(pack):
    rows = rows_of(pack)
    write_rows(pack, [rows[0], *rows[2:]])
    problems = check_pack(reseal(pack)).problems
    assert any("rows are missing" in problem for problem in problems)
    write_rows(pack, rows[:-1])
    assert any("is not the head" in problem for problem in check_pack(reseal(pack)).problems)
    (pack / "ledger.jsonl").write_text("")
    assert any("it has no rows" in problem for problem in check_pack(reseal(pack)).problems)


def test_a_ledger_rewritten_to_the_end_is_betrayed_by_what_stands_outside(shop, pack):
    noted = shop.archive.log()[-1].hash
    rows = rows_of(pack)
    rows[place_of(rows, "approve")]["details"]["comment"] = "much better"
    head = write_rows(pack, rows, rechained=True)
    reseal(pack, head=head)
    rewritten = check_pack(pack, head=noted).problems
    assert f"ledger: the row {noted[:12]}… noted outside is not among the 5 rows" in rewritten
    trust(shop, OTHERS, actor="sato")
    assert any("one of the two was rewritten" in problem for problem in check_pack(pack, shop=shop).problems)


def test_another_report_than_the_approved_one_is_named(pack):
    rewrite(pack, "report.json", lambda value: value | {"verdict": "pass", "verdicts": []})
    problems = check_pack(reseal(pack)).problems
    assert any(problem.startswith("report: the ledger's newest report") for problem in problems)
    assert any("approvals: the manifest says approved by mori, the ledger nobody" in problem for problem in problems)
    assert any("it was given over another report" in problem for problem in problems)


def test_a_report_of_another_version_is_named(pack):
    rewrite(pack, "report.json", lambda value: value | {"version_id": "0" * 64})
    assert "report: report.json is about another version" in check_pack(reseal(pack)).problems


def test_another_policy_than_the_approved_one_is_named(pack):
    from perdure.governance import parse_policy

    text = (pack / "policy.toml").read_text().replace("learnt=0", "learnt=0.9")
    (pack / "policy.toml").write_text(text)
    assert any(
        problem.startswith("policy: policy.toml has the digest") for problem in check_pack(reseal(pack)).problems
    )
    problems = check_pack(reseal(pack, policy=parse_policy(text).digest)).problems
    assert any("mori's does not count: it was given under another policy" in problem for problem in problems)
    (pack / "policy.toml").write_text("learnt = ")
    assert any(problem.startswith("policy: it cannot be read") for problem in check_pack(reseal(pack)).problems)


def test_an_approver_who_never_approved_is_named(pack):
    def forge(value):
        return value | {"decisions": [value["decisions"][0] | {"approver": "abe"}]}

    rewrite(pack, "approvals.json", forge)
    problems = check_pack(reseal(pack, approved_by=("abe",))).problems
    assert "approvals: they are not what the ledger says" in problems
    assert "approvals: the manifest says approved by abe, the ledger mori" in problems


def test_who_asked_does_not_count_as_approver(pack):
    rows = rows_of(pack)
    rows[place_of(rows, "approve")]["details"]["approver"] = " Kato"
    head = write_rows(pack, rows, rechained=True)
    problems = check_pack(reseal(pack, head=head, approved_by=(" Kato",))).problems
    assert any("who approved had asked for the version" in problem for problem in problems)


def test_an_approval_that_was_withdrawn_later_does_not_count(pack):
    rows = rows_of(pack)
    approve = rows[place_of(rows, "approve")]
    said = approve["details"] | {"decision": "rejected", "approver": "abe", "comment": "no"}
    last = {**rows[-1], "sequence": rows[-1]["sequence"] + 1, "actor": "abe", "action": "reject", "details": said}
    head = write_rows(pack, [*rows, last], rechained=True)
    problems = check_pack(reseal(pack, head=head, ledger_rows=len(rows) + 1)).problems
    assert any("abe rejected the version later" in problem for problem in problems)


def test_another_parent_is_named(pack):
    rewrite(pack, "versions/v0.json", lambda value: value | {"recipe": {"source": "a better model"}})
    problems = check_pack(reseal(pack)).problems
    assert any(problem.startswith("lineage: no manifest has the id") for problem in problems)
    line = [digest_bytes((pack / f"versions/v{number}.json").read_bytes()) for number in (0, 1)]
    problems = check_pack(reseal(pack, lineage=tuple(line))).problems
    assert any("was not made from the one before it" in problem for problem in problems)
    assert "ledger: it names another parent of the version" in problems


def test_a_bill_of_materials_that_hides_something_is_named(pack):
    def without(part):
        def change(value):
            del value["metadata"]["component"]["pedigree"][part]
            return value

        return change

    rewrite(pack, "bom.cdx.json", without("patches"))
    assert "bill of materials: its patches are not what the manifests say" in check_pack(reseal(pack)).problems
    rewrite(pack, "bom.cdx.json", without("ancestors"))
    assert "bill of materials: its ancestors are not those of the lineage" in check_pack(reseal(pack)).problems
    (pack / "bom.cdx.json").write_text("[]")
    assert any(
        problem.startswith("bill of materials: it cannot be read") for problem in check_pack(reseal(pack)).problems
    )


def test_the_pack_of_another_workspace_is_named(pack, tiny_folder, tmp_path):
    other = Workspace.init(tmp_path / "other", tiny_folder, actor="abe")
    problems = check_pack(pack, shop=other).problems
    assert any("the pack is about another workspace" in problem for problem in problems)


def test_what_happened_since_is_noted(shop, pack):
    report = {**shop.archive.report(shop.version("v1")), "seconds": {}}
    shop.archive.put_report(shop.version("v1"), report, actor="kato")
    found = check_pack(pack, shop=shop)
    assert found.ok and found.notes == ("the workspace has a newer report of the version",)


def test_flipped_bits_are_found_or_change_nothing(shop, tmp_path):
    path = export_pack(shop, shop.version("v1"), tmp_path / "v1.zip", page="x", actor="sato").path
    good, files = path.read_bytes(), read_files(path)
    chosen, harmless = random.Random(5), 0
    for _ in range(300):
        data = bytearray(good)
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        path.write_bytes(data)
        try:
            if check_pack(path).ok:
                assert read_files(path) == files  # a time stamp of the zip file, for example
                harmless += 1
        except PerdureError:
            pass
    assert harmless < 100


def test_the_zip_and_the_folder_are_one_pack(pack, tmp_path):
    shutil.make_archive(str(tmp_path / "made"), "zip", pack)
    with zipfile.ZipFile(tmp_path / "made.zip") as made, zipfile.ZipFile(tmp_path / "flat.zip", "w") as flat:
        for name in made.namelist():
            if not name.endswith("/"):
                flat.writestr(name, made.read(name))
    assert read_files(tmp_path / "flat.zip") == read_files(pack)
