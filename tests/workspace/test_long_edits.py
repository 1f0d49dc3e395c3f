import pytest
import torch

from perdure.deltas import singular_values
from perdure.errors import SettingError
from perdure.workspace import Settings
from perdure.workspace.choosing import TOLERANCE
from perdure.workspace.updates import applied_since_base, base_ceiling
from shops import LAX, MORE, QUICK, write_facts

NAMES = ("Ada", "Lyon", "Mira", "Orlan", "Nia", "Tamsin")
ROWS = [{"subject": name, "prompt": f"{name} lives in", "target_new": "Rome", "target_true": "Oslo"} for name in NAMES]
EAGER = {
    "values": {"steps": 12, "clamp": 30, "learning_rate": 0.5, "weight_decay": 0},
    "contexts": 0,
    "moment_weight": 1e-4,
}


def carry_out(shop, rows=ROWS, config=QUICK, **more):
    plan, _ = shop.plan(rows, Settings(config=config, batch_size=2, **more))
    return shop.carry_out(plan, actor="kato")


def course(shop, version):
    return shop.archive.solved(version).notes["course"]


def test_the_weights_are_looked_at_after_every_batch_and_the_facts_asked_again(tiny_shop):
    version = carry_out(tiny_shop, rescore=4)
    seen = course(tiny_shop, version)
    assert sorted({row["facts"] for row in seen["growth"]}) == [2, 4, 6]
    assert all(row["sigma_ratio"] > 0 and row["condition_ratio"] > 0 for row in seen["growth"])
    assert sorted({row["taught"] for row in seen["cohorts"]}) == [4, 6]
    assert sum(row["kept"]["n"] for row in seen["cohorts"] if row["taught"] == 6) == 6
    report = tiny_shop.measure(version)
    assert report.course is not None and len(report.course.growth) == len(seen["growth"])


def test_later_versions_are_asked_for_the_facts_of_earlier_ones(tiny_shop):
    first = carry_out(tiny_shop, config=EAGER)
    second = carry_out(tiny_shop, rows=MORE, config=EAGER)
    tiny_shop.measure(first)
    cohorts = {cohort.label: cohort for cohort in tiny_shop.measure(second).course.cohorts}
    assert set(cohorts) == {"v1", "v2"}
    assert (cohorts["v1"].kept.n, cohorts["v2"].kept.n) == (6, 1)
    assert cohorts["v1"].before.hits == 6


def test_an_interrupted_edit_keeps_what_was_seen_and_ends_the_same(tiny_shop, monkeypatch):
    plan, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, rescore=2))
    straight = tiny_shop.carry_out(plan, actor="kato")
    calls = []
    real = tiny_shop.progress

    def interrupt(stage, done, total):
        if stage == "editing batches" and done == 4 and not calls:
            calls.append(done)
            raise KeyboardInterrupt
        real(stage, done, total)

    again, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, rescore=2), on="v0")
    tiny_shop.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        tiny_shop.carry_out(again, actor="kato")
    files = sorted(file.name for file in (tiny_shop.folder / "work" / again.digest).iterdir())
    assert files == ["batch-000000.safetensors", "batch-000001.safetensors", "course.json"]
    finished = tiny_shop.carry_out(again, actor="kato")
    assert course(tiny_shop, finished)["growth"][0] == course(tiny_shop, straight)["growth"][0]
    assert not (tiny_shop.folder / "work" / again.digest).exists()


def test_a_limit_ends_the_edit_and_says_what_was_not_taught(tiny_shop):
    (tiny_shop.folder / "policy.toml").write_text(LAX.replace("norm_ratio=1e9", "norm_ratio=1e-9"))
    told = carry_out(tiny_shop)
    assert len(tiny_shop.facts(told)) == 6
    assert "norm" in told.manifest.recipe["limit"] and told.manifest.recipe["stopped"] is None
    (tiny_shop.folder / "policy.toml").write_text(LAX + "sigma_ratio=1e-9\n")
    plan, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, stop_at_limit=True), on="v0")
    ended = tiny_shop.carry_out(plan, actor="kato")
    assert ended.manifest.recipe["stopped"] == {"after": 2, "of": 6}
    assert [fact.subject for fact in tiny_shop.facts(ended)] == ["Ada", "Lyon"]
    assert ended.manifest.recipe["facts"]["count"] == 2
    assert "singular value" in ended.manifest.recipe["limit"]


def test_a_restraint_after_each_batch_holds_at_the_end_and_changes_what_is_solved(tiny_shop):
    strong = {"alpha": 50.0, "ceiling": 0.01}
    inside = carry_out(tiny_shop, restraint_config=strong, each_batch=True)
    plan, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, restraint_config=strong), on="v0")
    outside = tiny_shop.carry_out(plan, actor="kato")
    base = tiny_shop.version("v0")
    for version in (inside, outside):
        for name, change in applied_since_base(tiny_shop.archive, version).changes.items():
            star = base_ceiling(tiny_shop.archive, base, name)
            assert float(singular_values(change)[0]) < 0.011 * star + 2
    first, second = (tiny_shop.archive.solved(version) for version in (inside, outside))
    assert any(
        not torch.equal(change.low_rank.left, second.changes[name].low_rank.left)
        for name, change in first.changes.items()
    )


def test_auto_takes_a_strength_on_the_measured_curve(tiny_shop):
    version = carry_out(tiny_shop, config=EAGER, restraint="auto")
    curve = course(tiny_shop, version)["trade_off"]
    chosen = [point for point in curve if point["chosen"]]
    assert len(chosen) == 1 and curve[0]["restraint"] == "none"
    recipe = version.manifest.recipe
    assert (recipe["restraint"], recipe["restraint_config"]) == (chosen[0]["restraint"], chosen[0]["config"])
    assert recipe["restraint_chosen"] == "on the measured curve"
    best = max(point["kept"]["value"] for point in curve)
    assert chosen[0]["kept"]["value"] >= best - TOLERANCE


@pytest.mark.parametrize("more", [{"restraint_config": {"alpha": 2.0}}, {"each_batch": True}])
def test_auto_takes_no_settings(tiny_shop, tmp_path, more):
    with pytest.raises(SettingError, match="auto chooses"):
        tiny_shop.plan(write_facts(tmp_path / "facts.jsonl"), Settings(restraint="auto", **more))


def test_earlier_facts_are_asked_after_a_number_of_facts(tiny_shop):
    with pytest.raises(SettingError, match="0 for never"):
        tiny_shop.plan(ROWS, Settings(rescore=-1))
