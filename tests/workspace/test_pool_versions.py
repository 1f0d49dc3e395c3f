"""Versions that answer with a pool: made, answered through the router, measured, undone, exported."""

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tiny
from perdure.errors import RefusedError, SettingError, UnknownNameError, UnsafeFileError, WorkspaceError
from perdure.tuning.merging import Merge
from perdure.workspace import Workspace, pool_measures, pooling
from perdure.workspace.manifest import check_file_names
from perdure.workspace.pool_changes import commit_pool, part_task, rollback_group
from perdure.workspace.pools import asked_through, opened_pool
from perdure.workspace.tuning import kept_states
from pool_tasks import AGAIN, CAPITALS, FIRST, HAIKU, POEM, QUICK, SECOND, task

REQUEST = f"{CAPITALS}\n\nriver:"
OTHER = "Seven times eight equals?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """v1: a first group; v2: a second; v3: a task that joined the first."""
    folder = tmp_path_factory.mktemp("pool") / "shop"
    shop = Workspace.init(folder, tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    assert len(list(shop.tune_in_pool([FIRST, POEM, SECOND], QUICK, actor="kato"))) == 3
    return folder


@pytest.fixture
def shop(trained, tmp_path):
    return Workspace.open(shutil.copytree(trained, tmp_path / "shop"))


def in_use(shop, ref):
    """By group, the hash of the adapter that a version answers with."""
    with opened_pool(shop, shop.version(ref)) as pool:
        return {name: pool.current(name).digest for name in pool.groups.names}


def notes(shop, ref):
    return shop.archive.solved(shop.version(ref)).notes["pool"]


def logits(model, tokenizer, text=REQUEST):
    with torch.no_grad():
        return model(tokenizer(text, return_tensors="pt").input_ids).logits


def test_each_change_is_a_version_of_the_same_weights(shop):
    base, *made = shop.archive.versions()
    assert [version.manifest.recipe["group"] for version in made] == ["g1", "g2", "g1"]
    assert all(version.manifest.tensors == base.manifest.tensors for version in made)
    assert in_use(shop, "v2")["g1"] == in_use(shop, "v1")["g1"]
    assert in_use(shop, "v3")["g2"] == in_use(shop, "v2")["g2"]
    assert in_use(shop, "v3")["g1"] != in_use(shop, "v2")["g1"]
    assert made[1].manifest.files.items() > {
        (name, stored) for name, stored in made[0].manifest.files.items() if ".g1." in name
    }
    assert shop.archive.verify().ok


def test_verification_compares_every_adapter_with_what_its_router_names(shop):
    found = shop.archive.verify()
    assert (found.ok, found.pools) == (True, 3)
    assert shop.archive.verify(deep=False).pools == 0
    with opened_pool(shop, shop.version("v3")) as pool:
        router = pool.folder / "router.json"
        router.write_text(router.read_text().replace(pool.current("g2").digest, "0" * 64))
        commit_pool(shop, shop.version("v3"), pool, {"kind": "pool"}, {"facts": []}, actor="kato")
    [problem] = shop.archive.verify().problems
    assert problem.startswith("v4, its pool: the adapter in ")


def test_a_task_starts_from_its_group_or_the_nearest(shop):
    first, second, third = (notes(shop, ref) for ref in ("v1", "v2", "v3"))
    assert (first["started_from"], second["started_from"], third["started_from"]) == (None, "g1", "g1")
    assert [each["averaged"] for each in (first, second, third)] == [False, False, True]
    assert shop.archive.solved(shop.version("v1")).notes["training"]["averaging"]["form"] == "none"
    assert third["merge"]["n"] == len(FIRST.test)
    assert third["growth"]["groups"]["g1"]["versions"] == 2
    assert first["growth"]["share"] == pytest.approx(second["growth"]["share"] / 2)


def test_the_shared_adapter_is_the_sum_at_the_rank_asked_for(shop):
    with opened_pool(shop, shop.version("v3")) as pool:
        adapter = pooling.bring(shop, shop.version("v3"), pool, "g1")
    assert {change.low_rank.rank for change in adapter.changes.values()} == {QUICK["rank"]}
    assert 0 < notes(shop, "v3")["refactoring_error"] < 1


def test_a_request_is_answered_by_its_group_and_the_base_is_untouched(shop):
    model, tokenizer = shop.load("v0")
    plain = logits(model, tokenizer)
    with shop.answering("v3", REQUEST) as by:
        assert (by.route.group, by.route.fallback) == ("g1", False)
        assert (logits(by.model, by.tokenizer) - plain).abs().max() > 1e-3
    with shop.answering("v3", OTHER) as by:
        assert (by.route.group, by.route.fallback) == (None, True)
        assert torch.equal(logits(by.model, by.tokenizer), plain)
    assert torch.equal(logits(*shop.load("v3")), plain)
    with shop.answering("v0", REQUEST) as by:
        assert by.route is None


def test_items_are_asked_group_by_group_and_come_back_in_order(shop):
    asked = []

    def ask(model, _tokenizer, places):
        hooks = sum(len(module._forward_hooks) for module in model.modules())
        asked.append((list(places), bool(hooks)))
        return [place * 10 for place in places]

    texts = [REQUEST, OTHER, HAIKU, AGAIN]
    assert asked_through(shop, shop.version("v3"), texts, ask) == [0, 10, 20, 30]
    assert asked == [([0, 3], True), ([1], False), ([2], True)]
    asked.clear()
    assert asked_through(shop, shop.version("v0"), texts, ask) == [0, 10, 20, 30]
    assert asked == [([0, 1, 2, 3], False)]


def test_an_export_holds_the_base_and_adapters_for_peft(shop, tmp_path):
    shop.export("v3", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/pool").iterdir()) == ["g1", "g2", "router.json"]
    assert not list((tmp_path / "out").glob("pool.*"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = shop.load("v0")[1]
    adapted = PeftModel.from_pretrained(base, tmp_path / "out/pool/g1").eval()
    with shop.answering("v3", REQUEST) as by:
        assert torch.allclose(logits(adapted, tokenizer), logits(by.model, tokenizer), atol=1e-5)
    with pytest.raises(SettingError, match="as a folder"):
        shop.export_delta("v3", tmp_path / "delta.safetensors")


def test_one_group_is_rolled_back_as_a_version(shop):
    made = rollback_group(shop, "g1", actor="mori")
    assert (made.name, made.parent) == ("v4", shop.version("v3").id)
    assert in_use(shop, made) == {"g1": in_use(shop, "v1")["g1"], "g2": in_use(shop, "v3")["g2"]}
    assert made.manifest.recipe["unserved"] == ["again"]
    shop.promote("v3", "staging", actor="mori")
    shop.promote(made, "staging", actor="mori")
    assert shop.rollback("staging", actor="mori").id == shop.version("v3").id
    assert in_use(shop, "staging") == in_use(shop, "v3")
    with pytest.raises(UnknownNameError, match="g9"):
        rollback_group(shop, "g9", actor="mori")
    with pytest.raises(WorkspaceError, match="no pool"):
        rollback_group(shop, "g1", on="v0", actor="mori")


def test_another_task_of_the_same_file_name_is_checked_against_the_first(shop):
    other = task("capitals", f"{CAPITALS} Now.", str.swapcase)
    [plan] = pooling.plan_in_pool(shop, [other], QUICK)
    name = f"capitals-{other.digest[:8]}"
    assert (plan.joined.task, plan.joined.group) == (name, "g1")
    made = pooling.carry_out_in_pool(shop, plan, actor="mori")
    assert made.manifest.recipe["task"] == {"name": name, "digest": other.digest, "rows": len(other.train)}
    assert notes(shop, made)["merge"]["n"] == len(FIRST.test) + len(SECOND.test)
    with opened_pool(shop, made) as pool:
        assert name in pool.groups.tasks
    [again] = pooling.plan_in_pool(shop, [FIRST], QUICK)
    assert (again.joined.task, again.joined.similarity) == ("capitals", 1.0)


def test_after_a_rollback_tuning_goes_on_from_what_is_served(tmp_path):
    shop = Workspace.init(tmp_path / "shop", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    settings = {**QUICK, "replay": {"share": 0.3}, "regularizers": [{"kind": "ewc"}]}
    list(shop.tune_in_pool([FIRST, SECOND], settings))
    rollback_group(shop, "g1", actor="mori")
    [made] = shop.tune_in_pool([task("third", f"{CAPITALS} Now.")], settings)
    with opened_pool(shop, made) as pool:
        assert pool.current("g1").tasks == ("capitals", "third")
    memory = shop.archive.solved(made).notes["memory"]
    assert memory["seen"] == 2 * len(FIRST.train)
    assert not any(kept["instruction"] == AGAIN for kept in memory["rows"])


def test_a_merge_is_undone_as_a_version(shop):
    made = part_task(shop, "again", actor="mori")
    found = in_use(shop, made)
    assert found["g1"] == in_use(shop, "v1")["g1"]
    assert found["g2"] == in_use(shop, "v3")["g2"]
    assert found["g3"] == in_use(shop, "v3")["g1"]  # the adapter that was trained for it, now its own
    assert made.manifest.recipe["unserved"] == []
    with shop.answering(made, AGAIN) as by:
        assert by.route.group == "g3"
    with pytest.raises(UnknownNameError, match="task"):
        part_task(shop, "nothing", actor="mori")
    with pytest.raises(SettingError, match="alone"):
        part_task(shop, "poem", actor="mori")


def test_a_merge_that_harms_opens_a_group_instead(shop, monkeypatch):
    harm = Merge(False, 1.0, 0.5, 1.5, 9, "refused: the earlier tasks' loss changed by +1.0000")
    monkeypatch.setattr(pooling, "check_merge", lambda *_, **__: harm)
    third = task("third", f"{CAPITALS} Now.", str.swapcase)
    with pytest.raises(RefusedError, match=r"refused: .* raise the cap .* pool\.allowed"):
        list(shop.tune_in_pool([third], {**QUICK, "pool": {"cap": 2}}))
    assert shop.archive.versions()[-1].name == "v3"
    [made] = shop.tune_in_pool([third], {**QUICK, "pool": {"cap": 3}})
    assert made.manifest.recipe["group"] == "g3"
    assert {"g1": in_use(shop, "v3")["g1"], "g2": in_use(shop, "v3")["g2"]}.items() < in_use(shop, made).items()
    said = notes(shop, made)
    assert (said["joined"]["group"], said["averaged"], said["merge"]["low"]) == ("g1", False, 0.5)


def test_a_parted_group_starts_with_what_its_own_task_left(tmp_path, monkeypatch):
    """Of a task whose group did not bear it, as of one that opened a group at once: Fisher information of its own."""
    harm = Merge(False, 1.0, 0.5, 1.5, 9, "refused")
    monkeypatch.setattr(pooling, "check_merge", lambda *_, **__: harm)
    shop = Workspace.init(tmp_path / "shop", tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    settings = {**QUICK, "regularizers": [{"kind": "ewc", "rows": 4, "weight": 1e-9}]}
    [first] = shop.tune_in_pool([FIRST], settings)
    old = {name: torch.full_like(value, 1e6) for name, value in kept_states(shop, first)["ewc"].items()}
    monkeypatch.setattr(pooling, "kept_states", lambda *_: {"ewc": old})
    [second] = shop.tune_in_pool([SECOND], settings)
    assert second.manifest.recipe["group"] == "g2"
    own = kept_states(shop, second)
    assert set(own) == {"ewc"}
    assert all(0 < float(value.max()) < 1e5 for state in own.values() for value in state.values())


def test_measuring_goes_through_the_router(shop, quick_suite, monkeypatch):
    ran = []
    real = pool_measures.measure_retention
    monkeypatch.setattr(pool_measures, "measure_retention", lambda *given: ran.append(1) or real(*given))
    report = shop.measure("v3", actor="mori")
    assert [task.name for task in report.tasks.tasks] == ["capitals", "poem", "again"]
    assert report.retention.overall.before == report.retention.overall.after
    assert (report.pool.changed, report.pool.routed, ran) == ("g1", (), [])
    assert [group.tasks for group in report.pool.groups] == [("capitals", "again"), ("poem",)]
    assert "again joins g1" in report.pool.reason
    assert "earlier tasks' loss" in report.pool.reason
    assert not report.matrices
    with pytest.raises(SettingError, match="lm-eval"):
        shop.measure("v3", tasks=["hellaswag"])


def test_general_items_that_do_not_fall_back_are_told(shop, quick_suite, monkeypatch):
    [made] = shop.tune_in_pool([task("poem", HAIKU)], {**QUICK, "pool": {"fallback": "nearest"}})
    report = shop.measure(made, actor="mori")
    assert report.pool.fallback == "nearest"
    assert len(report.pool.routed) == report.pool.general > 0
    assert {item.part for item in report.pool.routed} >= {"language", "functions.upper", "facts.prompt"}
    assert report.language.ratio != 1.0


def test_weights_under_a_pool_stay_as_they_are(shop):
    with pytest.raises(RefusedError, match="pool of adapters"):
        shop.tune(FIRST, QUICK)
    with pytest.raises(RefusedError, match="perdure tune --pool"):
        shop.edit([{"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch"}])
    delta = pooling.Delta({"model.norm.weight": pooling.Change(dense=torch.ones(32))})
    with pytest.raises(SettingError, match="trained on its weights"):
        shop.archive.commit(shop.version("v3"), delta, solved=delta, recipe={}, actor="mori")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool": {"encoder": "./other"}}, "cannot be compared"),
        ({"pool": {"cap": 0}}, "cap"),
        ({"pool": {"caps": 4}}, "caps"),
        ({"pool": 4}, r"pool\.cap=4"),
        ({"method": "full"}, "--full"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(shop, settings, said):
    with pytest.raises(SettingError, match=said):
        pooling.plan_in_pool(shop, [FIRST], settings)


@pytest.mark.parametrize(
    "name",
    [
        "pool.g1.0123456789abcdef.evil.py", "pool.g0.0123456789abcdef.adapter_config.json", "pool/router.json",
        "pool.g1...adapter_config.json", "pool.g1.0123456789abcdeF.adapter_model.safetensors", "pool.router.json\n",
    ],
)  # fmt: skip
def test_other_file_names_of_a_pool_are_refused(name):
    with pytest.raises(UnsafeFileError, match="does not belong"):
        check_file_names([name])
    check_file_names(["pool.router.json", "pool.g12.0123456789abcdef.adapter_model.safetensors"])
