"""Facts and tasks found again: who asked, when, in which versions they live, whether they still hold."""

import sqlite3

import pytest

from perdure.deltas import Delta
from perdure.errors import IntegrityError, UnknownNameError
from perdure.requests import Fact
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME


def fact(subject, target, **more):
    return Fact(subject=subject, prompt=f"{subject} lives in", target_new=target, **more)


ADA, ADA_LATER, MIRA = fact("Ada", "Rome", source="facts.jsonl:1"), fact("Ada", "Oslo"), fact("Mira", "Größe_50%")


def teach(archive, parent, *facts, actor="mori", removed=(), task=None, n=0):
    rows = [one.model_dump(mode="json") for one in facts]
    notes = {"facts": rows, "removed": [one.model_dump(mode="json") for one in removed]}
    notes |= {"task": task} if task else {}
    recipe = {"facts": [one.id for one in facts], "n": n}
    return archive.commit(parent, Delta(), solved=Delta(notes=notes), recipe=recipe, actor=actor)


def told(archive, version, *facts, right=True):
    cases = [{"fact": one.id, "kind": "prompt", "after_ok": right} for one in facts]
    cases += [{"fact": one.id, "kind": "paraphrase", "after_ok": not right} for one in facts]
    archive.put_report(version, {"edits": {"cases": cases}}, actor="mori")


@pytest.fixture
def family(archive):
    """v3: Ada in Rome, Mira; v4 on it: Ada in Oslo; v5 on v3: a task; v6 on v2: Mira, made to be without Ada."""
    v3 = teach(archive, archive.version("v2"), ADA, MIRA)
    teach(archive, v3, ADA_LATER, actor="hara")
    task = {"name": "Returns", "digest": "ab" * 32, "instruction": "Answer politely.", "train_rows": 7, "test": []}
    teach(archive, v3, task=task)
    teach(archive, archive.version("v2"), MIRA, removed=[ADA])
    return archive


def test_words_are_found_whatever_their_case(family):
    (found,) = family.search("ada ROME")
    assert (found.id, found.kind, found.version, found.requester) == (ADA.id, "fact", "v3", "mori")
    assert found.shown["target_new"] == "Rome" and found.holds is None
    assert [one.shown["target_new"] for one in family.search("lives in")] == ["Größe_50%", "Oslo", "Rome"]
    assert [one.shown["name"] for one in family.search("politely")] == ["Returns"]
    assert [one.id for one in family.search("facts.jsonl")] == [ADA.id]
    assert [one.id for one in family.search("GRÖSSE_50%")] == [MIRA.id]
    assert [one.id for one in family.search(ADA.id[:12])] == [ADA.id]
    assert [one.id for one in family.search("ada", limit=1)] == [ADA_LATER.id]


@pytest.mark.parametrize("text", ["", "   ", "100%", "a_a", "'; DROP TABLE taught; --", "\\", "x" * 5000])
def test_words_that_nothing_holds(family, text):
    assert family.search(text) == []
    assert family.verify().ok


def test_a_lineage_tells_everything(family):
    v3 = family.version("v3")
    told(family, v3, ADA, right=False)
    told(family, v3, ADA)
    family.promote(family.version("v5"), "staging", actor="mori", policy="", expected="any")
    found = family.lineage_of(ADA.id[:10])
    assert (found.id, found.kind, found.holds) == (ADA.id, "fact", True)
    assert [(one.version, one.requester) for one in found.taught] == [("v3", "mori")]
    assert [one.version for one in found.removed] == ["v6"]
    assert found.lives_in == ("v3", "v5") and found.served_by == ("staging",)
    assert [(one.shown["target_new"], one.version, one.requester) for one in found.conflicts] == [
        ("Oslo", "v4", "hara"),
    ]
    assert [(one.version, one.hits, one.n) for one in found.answers] == [("v3", 0, 1), ("v3", 1, 1)]
    later = family.lineage_of(ADA_LATER.id)
    assert later.lives_in == ("v4",) and later.holds is None and len(later.conflicts) == 1
    assert family.lineage_of(MIRA.id).lives_in == ("v3", "v4", "v5", "v6")


def test_a_task_has_a_lineage_as_well(family):
    v5 = family.version("v5")
    tasks = [{"digest": "ab" * 32, "exact": {"after": {"hits": 3, "n": 4}}}]
    family.put_report(v5, {"tasks": {"tasks": tasks}}, actor="mori")
    found = family.lineage_of("abab")
    assert (found.kind, found.shown["name"], found.lives_in, found.holds) == ("task", "Returns", ("v5",), False)


def test_what_is_taken_out_is_asked_for_the_taught_answer(family):
    cases = [{"fact": ADA.id, "kind": "prompt", "gone": True}]
    family.put_report(family.version("v6"), {"removal": {"cases": cases}}, actor="mori")
    assert family.lineage_of(ADA.id).holds is False


def test_unknown_and_ambiguous_ids(family):
    for name in ("", "abc", "zzzz", "ffff" * 16):
        with pytest.raises(UnknownNameError, match="Unknown fact or task"):
            family.lineage_of(name)


def test_new_versions_are_found_at_once_and_every_process_sees_them(family, shop):
    assert family.search("Kai") == []
    with Archive.open(shop) as other:
        teach(other, other.version("latest"), fact("Kai", "Bonn"))
    assert [one.version for one in family.search("kai")] == ["v7"]


def test_damaged_copies_are_made_again(family, shop):
    assert len(family.search("ada")) == 2
    connection = sqlite3.connect(shop / FILE_NAME)
    connection.execute("UPDATE taught SET shown = replace(shown, 'Rome', 'Bonn')")
    connection.commit()
    assert any("copied for searching are damaged" in problem for problem in family.verify().problems)
    assert [one.shown["target_new"] for one in family.search("ada")] == ["Oslo", "Rome"]
    assert family.verify().ok
    connection.execute("DELETE FROM taught WHERE asked = 'Ada lives in'")
    connection.commit()
    connection.close()
    assert any("is not what its solved delta says" in problem for problem in family.verify().problems)


def test_a_damaged_object_is_named(family):
    solved = family.version("v3").manifest.solved
    (family.folder / "objects" / solved[:2] / solved).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="v3, its solved delta"):
        family.search("ada")
