import json
import logging

import pytest
import torch
from peft import PeftModel

import tiny as models
from perdure.deltas import Change, Delta, LowRank
from perdure.editing import apply_delta
from perdure.errors import IntegrityError, SettingError, UnknownNameError, UnsafeFileError
from perdure.tuning.grouping import GroupingConfig, Groups
from perdure.tuning.merging import check_merge
from perdure.tuning.pool import Pool
from perdure.tuning.routing import Router, RoutingConfig
from perdure.tuning.similarity import TfidfEncoder

RETURNS = ["Decide whether the customer may return the item.", "Is a return of the product allowed?"]
INVOICES = ["Extract the invoice number, the date and the total amount as JSON."]
POEMS = ["Compose a haiku about autumn leaves."]
NAMES = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)]


def delta(seed, rank=3):
    generator = torch.Generator().manual_seed(seed)
    factors = [
        LowRank(0.2 * torch.randn(32, rank, generator=generator), torch.randn(rank, 48, generator=generator))
        for _ in NAMES
    ]
    return Delta({name: Change(factor) for name, factor in zip(NAMES, factors, strict=True)})


@pytest.fixture(scope="module")
def encoder():
    return TfidfEncoder.fitted()


@pytest.fixture
def pool(tmp_path, encoder):
    """A pool of two groups, each with one version."""
    pool = Pool.create(tmp_path / "pool", Groups(encoder), base="./base", base_parameters=10_000)
    pool.join("returns", RETURNS)
    pool.put("g1", delta(1), "returns", note="first training")
    pool.join("invoices", INVOICES)
    pool.put("g2", delta(2), "invoices")
    return pool


def test_peft_answers_with_a_pool_adapter_as_the_merged_delta_does(pool, tokenizer):
    tokens = tokenizer("May I send the shoes back?", return_tensors="pt").input_ids
    plain = models.llama()(tokens).logits
    for seed, group in ((1, "g1"), (2, "g2")):
        adapted = PeftModel.from_pretrained(models.llama(), pool.adapter(group)).eval()(tokens).logits
        merged = models.llama()
        apply_delta(merged, delta(seed))
        assert (adapted - plain).abs().max() > 1e-2
        assert torch.allclose(adapted, merged(tokens).logits, atol=1e-5)


def test_requests_are_routed_by_their_own_text(pool):
    router = pool.router()
    for text in (RETURNS[0], f"{RETURNS[1]}\n\nShoes, bought 12 days ago, worn once in the rain.\nAnswer:"):
        route = router.route(text)
        assert (route.group, route.fallback) == ("g1", False), route
    assert router.route(INVOICES[0].lower()).group == "g2"


def test_what_no_group_resembles_falls_back_openly(pool, caplog):
    with caplog.at_level(logging.INFO, logger="perdure.tuning.routing"):
        route = pool.router().route(POEMS[0])
    assert (route.group, route.fallback) == (None, True)
    assert route.nearest in ("g1", "g2")
    assert caplog.messages == [route.reason]
    assert "the base answers as the fallback" in route.reason


@pytest.mark.parametrize("text", ["", "?!", "the of and"])
def test_odd_requests_fall_back(pool, text):
    assert pool.router().route(text).fallback


def test_the_nearest_group_as_fallback(tmp_path, encoder):
    groups = Groups(encoder)
    pool = Pool.create(
        tmp_path / "p", groups, base="b", base_parameters=1, routing=RoutingConfig(fallback="nearest", threshold=0.9)
    )
    assert pool.router().route("anything").group is None
    pool.join("returns", RETURNS)
    pool.put("g1", delta(1), "returns")
    route = Pool.open(tmp_path / "p").router().route(POEMS[0])
    assert (route.group, route.fallback) == ("g1", True)
    assert "threshold 0.900" in route.reason


def test_groups_that_cannot_be_told_apart_are_named(encoder):
    router = Router(encoder, {"g1": [POEMS], "g2": [POEMS]}, threshold=0.5)
    route = router.route(POEMS[0])
    assert route.group == "g1"
    assert "g2 just as alike" in route.reason
    with pytest.raises(SettingError, match="threshold"):
        Router(encoder, {}, threshold=2.0)


def test_one_group_is_rolled_back_alone(pool):
    first, other = pool.current("g1"), pool.current("g2")
    second = pool.put("g1", delta(3), "returns")
    assert pool.current("g1") == second
    assert pool.rollback("g1") == first
    assert pool.current("g2") == other
    assert torch.allclose(pool.delta("g1").changes[NAMES[0]].value(), delta(1).changes[NAMES[0]].value())
    third = pool.put("g1", delta(4), "returns")
    assert third.parent == 0
    assert pool.rollback("g1") == first
    assert pool.rollback("g1") is None
    assert pool.router().route(RETURNS[0]).group is None
    with pytest.raises(SettingError, match="nothing to go back"):
        pool.rollback("g1")
    with pytest.raises(SettingError, match="no adapter"):
        pool.adapter("g1")
    assert len(pool.versions("g1")) == 3
    assert "rolled back" in pool.log[-1]
    pool.verify()


def test_after_a_rollback_a_new_version_does_not_claim_what_was_rolled_back(pool):
    pool.join("again", RETURNS)
    pool.put("g1", delta(3), "again")
    pool.rollback("g1")
    pool.join("third", RETURNS)
    version = pool.put("g1", delta(4), "third")
    assert version.tasks == ("returns", "third")
    assert pool.put("g1", delta(5), "third").tasks == ("returns", "third")
    with pytest.raises(UnknownNameError, match="invoices"):
        pool.put("g1", delta(5), "invoices")


def test_a_merge_that_harmed_is_undone(pool):
    earlier = pool.current("g1")
    joined = pool.join("inverse returns", RETURNS)
    assert joined.group == "g1"
    pool.put("g1", delta(5), "inverse returns")
    verdict = check_merge([1.0, 1.1, 0.9, 1.0], [1.5, 1.7, 1.3, 1.6])
    assert not verdict.merged
    parted = pool.part("inverse returns")
    assert (parted.group, parted.nearest) == ("g3", "g1")
    assert pool.current("g1") == earlier
    assert "parted" in pool.log[-1]
    pool.put("g3", delta(5), "inverse returns")
    assert pool.router().route(RETURNS[0]).group == "g1"
    assert "g3 just as alike" in pool.router().route(RETURNS[0]).reason


def test_parting_before_training_leaves_the_adapter(pool):
    earlier = pool.current("g1")
    pool.join("again", RETURNS)
    assert pool.part("again").group == "g3"
    assert pool.current("g1") == earlier


def test_a_task_is_sent_only_to_a_version_that_was_trained_for_it(pool):
    pool.join("more", POEMS)
    assert pool.router().route(POEMS[0]).group is None
    pool.put("g3", delta(6), "more")
    assert pool.router().route(POEMS[0]).group == "g3"


def test_a_pool_is_opened_as_it_was_left(pool):
    again = Pool.open(pool.folder)
    assert again.growth_report() == pool.growth_report()
    assert again.log == pool.log
    assert again.groups.log == pool.groups.log
    assert again.router().route(RETURNS[0]) == pool.router().route(RETURNS[0])
    with pytest.raises(SettingError, match="already"):
        Pool.create(pool.folder, Groups(pool.groups.encoder), base="b", base_parameters=1)


def test_growth_is_counted(pool):
    pool.put("g1", delta(3, rank=1), "returns")
    growth = pool.growth_report()
    assert growth.groups["g1"].parameters == 2 * 1 * (32 + 48)
    assert growth.parameters == 2 * (1 + 3) * (32 + 48)
    assert growth.share == growth.parameters / 10_000
    files = list(pool.folder.rglob("adapter_*"))
    assert growth.kept == sum(path.stat().st_size for path in files)
    assert growth.groups["g1"].versions == 2
    assert growth.size < growth.kept


def test_the_same_adapter_twice_is_kept_once(pool):
    pool.put("g1", delta(1), "returns")
    assert len(list((pool.folder / "g1").iterdir())) == 1
    assert len(pool.versions("g1")) == 2


def test_an_export_is_a_pool_of_one_folder_a_group(pool, tmp_path):
    pool.put("g1", delta(3), "returns")
    pool.export(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["g1", "g2", "router.json"]
    PeftModel.from_pretrained(models.llama(), tmp_path / "out" / "g1")
    out = Pool.open(tmp_path / "out")
    out.verify()
    assert out.current("g1").digest == pool.current("g1").digest
    assert out.router().route(RETURNS[0]).group == "g1"
    with pytest.raises(SettingError, match="not an empty folder"):
        pool.export(tmp_path / "out")


def test_a_changed_adapter_is_refused(pool):
    weights = pool.adapter("g1") / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for read in (lambda: pool.adapter("g1"), pool.verify, lambda: pool.export(pool.folder.parent / "out")):
        with pytest.raises(IntegrityError, match="not the one"):
            read()
    assert not (pool.folder.parent / "out").exists()
    pool.adapter("g2")


def test_pickles_and_links_are_refused(pool, tmp_path):
    (pool.adapter("g1") / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match=r"adapter_model\.bin"):
        pool.adapter("g1")
    folder = pool.adapter("g2")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="link"):
        pool.adapter("g2")


@pytest.mark.parametrize("folder", ["../g1", "/etc", "g1/../../x", "g1\n"])
def test_a_router_file_cannot_point_out_of_its_folder(pool, folder):
    path = pool.folder / "router.json"
    state = json.loads(path.read_text())
    state["adapters"]["g1"]["versions"][0]["folder"] = folder
    path.write_text(json.dumps(state))
    with pytest.raises(IntegrityError, match="folder"):
        Pool.open(pool.folder)


@pytest.mark.parametrize(("field", "value"), [("current", 7), ("parent", 0)])
def test_a_router_file_that_names_no_version_is_refused(pool, field, value):
    path = pool.folder / "router.json"
    state = json.loads(path.read_text())
    held = state["adapters"]["g1"]
    (held if field == "current" else held["versions"][0])[field] = value
    path.write_text(json.dumps(state))
    with pytest.raises(IntegrityError, match="not there"):
        Pool.open(pool.folder)


def test_a_write_that_fails_changes_nothing(pool, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    before = (pool.folder / "router.json").read_bytes(), pool.current("g1")
    monkeypatch.setattr("perdure.tuning.pool.write_state", full)
    with pytest.raises(OSError, match="no space"):
        pool.put("g1", delta(9), "returns")
    assert ((pool.folder / "router.json").read_bytes(), pool.current("g1")) == before


def test_unknown_groups_are_named(pool):
    with pytest.raises(UnknownNameError, match="g1, g2"):
        pool.put("g7", delta(1), "returns")


def test_the_cap_holds_in_a_pool(tmp_path, encoder):
    pool = Pool.create(tmp_path / "p", Groups(encoder, GroupingConfig(cap=1)), base="b", base_parameters=1)
    pool.join("returns", RETURNS)
    assert pool.join("poems", POEMS).group == "g1"
    assert "all 1 are in use" in Pool.open(tmp_path / "p").groups.log[-1]


def test_a_merge_is_refused_only_where_the_loss_rose_for_sure():
    # differences .1, .2, .3: mean .2, s = .1, t(2) = 4.303, reach = 4.303 · .1 / √3 = .2484
    unsure = check_merge([1.0, 1.0, 1.0], [1.1, 1.2, 1.3])
    assert unsure.merged
    assert (unsure.low, unsure.high) == pytest.approx((-0.0484, 0.4484), abs=1e-4)
    sure = check_merge([1.0] * 4, [1.2, 1.3, 1.2, 1.3])
    assert not sure.merged
    assert "refused" in sure.reason
    assert "n 4" in sure.reason
    assert check_merge([1.0] * 4, [1.2, 1.3, 1.2, 1.3], allowed=0.3).merged
    assert check_merge([1.0, 2.0], [0.9, 1.9]).merged
    assert not check_merge([1.0, 1.0], [1.0, float("nan")]).merged
    for before, after in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, float("inf")], [1.0, 1.0])):
        with pytest.raises(SettingError, match="at least two"):
            check_merge(before, after)
