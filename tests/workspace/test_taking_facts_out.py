import importlib

import pytest
import torch

from perdure import Workspace
from perdure.deltas import singular_values
from perdure.errors import RefusedError, RequestError, SettingError
from perdure.workspace import Settings
from perdure.workspace.removing import plan_removal
from perdure.workspace.updates import applied_since_base, solved_since_base
from shops import FACTS, MORE, QUICK

LYON, ADA, ORLAN, MIRA = "The twin city of Lyon is", "Ada speaks", "The colour of Orlan is", "Mira lives in"


def edit(shop, facts=FACTS, *, batch_size=1, restraint="prune", on="", config=QUICK, **more):
    settings = Settings(config=config, batch_size=batch_size, restraint=restraint, **more)
    return shop.carry_out(shop.plan(facts, settings, on=on)[0], actor="kato")


def weights(shop, version):
    return shop.archive.tensors(shop.version(version))


def prompts(shop, version):
    return [fact.prompt for step in shop.archive.lineage(shop.version(version)) for fact in shop.facts(step)]


def same_weights(shop, first, second):
    one, two = weights(shop, first), weights(shop, second)
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def searched(monkeypatch):
    """The subjects whose target values are searched for, from now on."""
    found = []
    for name in ("spreading", "rome"):
        room = importlib.import_module(f"perdure.editing.{name}")
        find = room.find_values

        def watched(model, tokenizer, facts, *rest, find=find, **more):
            found.extend(fact.subject for fact in facts)
            return find(model, tokenizer, facts, *rest, **more)

        monkeypatch.setattr(room, "find_values", watched)
    return found


@pytest.mark.parametrize("editor", ["memit", "rome"])
def test_without_its_last_fact_an_edit_is_the_edit_of_the_others_bit_for_bit(tiny_shop, searched, editor):
    edit(tiny_shop, editor=editor)
    searched.clear()
    left = tiny_shop.remove([ORLAN], actor="kato")
    assert searched == []
    assert prompts(tiny_shop, left) == [LYON, ADA]
    assert tiny_shop.archive.lineage(left)[-2].name == "v0"
    assert same_weights(tiny_shop, left, edit(tiny_shop, FACTS[:2], on="v0", editor=editor))


@pytest.mark.parametrize("editor", ["memit", "rome", "fine_tuning"])
def test_the_keys_leave_with_the_fact(tiny_shop, editor):
    quick = {"steps": 2, "layers": [0]} if editor == "fine_tuning" else QUICK
    first = edit(tiny_shop, editor=editor, config=quick, batch_size=2)
    left = tiny_shop.remove(LYON, actor="kato")
    assert prompts(tiny_shop, left) == [ADA, ORLAN]
    assert left.manifest.recipe["steps"][0]["batches"] == [1, 1]
    solved = tiny_shop.archive.solved(left)
    assert all(key_IN.shape[1] == 2 for key_IN in solved.keys.values())
    assert solved.keys.keys() == tiny_shop.archive.solved(first).keys.keys()
    assert tiny_shop.archive.verify().ok


def test_a_fact_whose_state_moved_is_searched_for_again(tiny_shop, searched):
    twin = [{"subject": "Lyon", "prompt": "The twin city of Lyon has", "target_new": "boats"}]
    strong = {"values": {"steps": 10, "clamp": 30, "weight_decay": 0}, "contexts": 0, "moment_weight": 1e-4}
    edit(tiny_shop, [*FACTS[:1], *twin], config=strong)
    searched.clear()
    left = tiny_shop.remove([LYON], actor="kato")
    assert searched == ["Lyon"]
    assert same_weights(tiny_shop, left, edit(tiny_shop, twin, on="v0", config=strong))


def test_a_fact_whose_value_was_found_for_two_is_searched_for_again_without_the_other(tiny_shop, searched):
    twins = [FACTS[0], {"subject": "Lyon", "prompt": "The twin city of Lyon has", "target_new": "boats"}, *FACTS[1:]]
    edit(tiny_shop, twins, batch_size=4)
    searched.clear()
    assert len(prompts(tiny_shop, tiny_shop.remove([ORLAN], actor="kato"))) == 3
    assert searched == []  # both of its facts stay, and so does their value
    left = tiny_shop.remove([LYON], on="v1", actor="kato")
    assert searched == ["Lyon"]
    assert prompts(tiny_shop, left) == ["The twin city of Lyon has", ADA, ORLAN]
    one, two = (weights(tiny_shop, version) for version in (left, edit(tiny_shop, twins[1:], batch_size=4, on="v0")))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("each_batch", [False, True])
@pytest.mark.parametrize("ceiling", [None, 0.05])
def test_later_edits_are_done_again_in_one_version(tiny_shop, monkeypatch, each_batch, ceiling):
    """As if the fact had never been taught: the same weights as the chain of edits without it, searched anew."""
    if ceiling:
        monkeypatch.setattr("perdure.workspace.updates.base_ceiling", lambda *_: ceiling)
    edit(tiny_shop, each_batch=each_batch)
    edit(tiny_shop, MORE, each_batch=each_batch)
    left = tiny_shop.remove([ORLAN], on="v2", actor="kato")
    assert (left.name, tiny_shop.archive.lineage(left)[-2].name) == ("v3", "v0")
    assert prompts(tiny_shop, left) == [LYON, ADA, MIRA]
    edit(tiny_shop, FACTS[:2], on="v0", each_batch=each_batch)
    gold = edit(tiny_shop, MORE, on="v4", each_batch=each_batch)
    one, two, base = (weights(tiny_shop, version) for version in (left, gold, "v0"))
    moved = {name for name in base if not torch.equal(base[name], two[name])}
    assert moved
    for name in moved:
        assert (one[name] - two[name]).norm() < 0.02 * (two[name] - base[name]).norm()


def test_without_all_its_facts_a_version_weighs_as_its_parent(tiny_shop):
    edit(tiny_shop)
    edit(tiny_shop, MORE)
    left = tiny_shop.remove([MIRA], actor="kato")
    assert tiny_shop.archive.lineage(left)[-2].name == "v1"
    assert same_weights(tiny_shop, left, "v1")
    assert prompts(tiny_shop, left) == [LYON, ADA, ORLAN]
    nothing = tiny_shop.remove([LYON, ADA, ORLAN], actor="kato")
    assert same_weights(tiny_shop, nothing, "v0")
    assert prompts(tiny_shop, nothing) == []
    assert not solved_since_base(tiny_shop.archive, nothing).keys
    assert edit(tiny_shop, MORE).parent == nothing.id


def test_one_after_the_other_or_together(tiny_shop):
    edit(tiny_shop, [*FACTS, *MORE])
    together = tiny_shop.remove([MIRA, ORLAN], on="v1", actor="kato")
    tiny_shop.remove([MIRA], on="v1", actor="kato")
    after = tiny_shop.remove([ORLAN], on="v3", actor="kato")
    assert after.id != together.id
    assert same_weights(tiny_shop, after, together)
    assert prompts(tiny_shop, after) == prompts(tiny_shop, together) == [LYON, ADA]


def test_a_fact_that_was_taught_twice_is_taken_out_of_both_edits(tiny_shop):
    edit(tiny_shop)
    edit(tiny_shop, [FACTS[2], *MORE], editor="rome")
    left = tiny_shop.remove([ORLAN], actor="kato")
    assert prompts(tiny_shop, left) == [LYON, ADA, MIRA]
    again = tiny_shop.remove([MIRA], actor="kato")  # each edit finds its own target values among those kept
    assert prompts(tiny_shop, again) == [LYON, ADA]
    assert again.manifest.recipe["editor"] == "memit"


@pytest.mark.parametrize("second", ["prune", "none"])
def test_the_restraint_holds_for_what_is_left(tiny_shop, monkeypatch, second):
    monkeypatch.setattr("perdure.workspace.updates.base_ceiling", lambda *_: 0.05)
    edit(tiny_shop)
    edit(tiny_shop, MORE, restraint=second)
    left = tiny_shop.remove([LYON], on="v2", actor="kato")
    applied = applied_since_base(tiny_shop.archive, left)
    base, now = weights(tiny_shop, "v0"), weights(tiny_shop, left)
    assert {name for name in base if not torch.equal(base[name], now[name])} == set(applied.changes)
    for name, change in applied.changes.items():
        torch.testing.assert_close(base[name].double() + change.value(), now[name].double(), rtol=0, atol=1e-6)
    if second == "prune":
        for name, change in solved_since_base(tiny_shop.archive, left).changes.items():
            raw = singular_values(change)
            expected = torch.minimum(raw, (raw.clamp(min=0.05) / 0.05).log() / torch.tensor(1.2).log() + 0.05)
            found = torch.linalg.svdvals(now[name].double() - base[name].double())[: len(raw)]
            torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=1e-3, atol=1e-5)
    more = edit(tiny_shop, [{"subject": "Bonn", "prompt": "Bonn is", "target_new": "old"}])
    total, last = applied_since_base(tiny_shop.archive, more), weights(tiny_shop, more)
    for name, change in total.changes.items():
        torch.testing.assert_close(base[name].double() + change.value(), last[name].double(), rtol=0, atol=1e-6)


def test_an_interrupted_removal_goes_on_and_is_not_taken_for_another(tiny_shop):
    edit(tiny_shop)
    edit(tiny_shop, MORE)
    versions = len(tiny_shop.archive.versions())

    def interrupt(stage, done, _total):
        if stage == "editing again" and done == 1:
            raise KeyboardInterrupt

    shop = Workspace.open(tiny_shop.folder, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        shop.remove([LYON], actor="kato")
    assert len(tiny_shop.archive.versions()) == versions
    assert len(list((tiny_shop.folder / "work").iterdir())) == 1
    other = tiny_shop.remove([ADA], on="v2", actor="kato")
    seen = []
    shop = Workspace.open(tiny_shop.folder, progress=lambda stage, done, _: seen.append((stage, done)))
    left = shop.remove([LYON], on="v2", actor="kato")
    assert ("editing batches", 2) not in seen  # the first edit was done
    assert ("editing batches", 1) in seen
    assert not list((tiny_shop.folder / "work").iterdir())
    assert prompts(tiny_shop, other) == [LYON, ORLAN, MIRA]
    assert prompts(tiny_shop, left) == [ADA, ORLAN, MIRA]
    assert tiny_shop.remove([LYON], on="v2", actor="kato").id == left.id


def test_what_cannot_be_taken_out_is_said(tiny_shop):
    with pytest.raises(RequestError, match="v0 was taught no fact"):
        tiny_shop.remove([LYON])
    edit(tiny_shop)
    with pytest.raises(RequestError, match=r"(?s)'The twin city of Leon is'.*Near ones:.*Lyon"):
        tiny_shop.remove(["The twin city of Leon is"])
    with pytest.raises(RequestError, match="name one"):
        tiny_shop.remove([])
    edit(tiny_shop, MORE)
    tiny_shop.reject("v1", actor="mori", reason="wrong")
    with pytest.raises(RefusedError, match="v1, which was rejected"):
        tiny_shop.remove([MIRA], on="v2")
    assert prompts(tiny_shop, tiny_shop.remove([LYON], on="v2")) == [ADA, ORLAN, MIRA]


def test_the_text_of_the_second_moments_must_be_at_hand(tiny_shop):
    texts = ("The sea is blue and wide.", "Bread is made of flour and water.")
    plan, _ = tiny_shop.plan(FACTS, Settings(config=QUICK, texts=texts))
    tiny_shop.carry_out(plan, actor="kato", texts=texts)
    with pytest.raises(SettingError, match="--text"):
        tiny_shop.remove([LYON])
    with pytest.raises(SettingError, match="--text"):
        tiny_shop.remove([LYON], texts=["something else"])
    assert prompts(tiny_shop, tiny_shop.remove([LYON], texts=texts)) == [ADA, ORLAN]


def test_a_plan_says_which_facts_are_taught_again(tiny_shop):
    edit(tiny_shop)
    edit(tiny_shop, MORE, editor="fine_tuning", config={"steps": 1})
    plan = plan_removal(tiny_shop, [LYON])
    assert [(step.method.name, len(step.facts), len(step.again.values)) for step in plan.steps] == [
        ("memit", 2, 2),
        ("fine_tuning", 1, 0),
    ]
    assert plan.names == ("v1", "v2")
