import pytest
import torch

from perdure.deltas import singular_values
from perdure.deltas.restraint import contract
from perdure.errors import EditError, RequestError, SettingError
from perdure.measuring.course import TradeOff
from perdure.measuring.statistics import share_of
from perdure.requests import Fact
from perdure.workspace import Settings
from perdure.workspace.choosing import TOLERANCE, _strengths, choose
from perdure.workspace.runs import check_lengths
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


def interrupted(*_given, **_more):
    raise KeyboardInterrupt


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
    assert (cohorts["v1"].kept.n, cohorts["v2"].kept.n) == (5, 1)  # Mira's fact is taught again in v2
    assert cohorts["v1"].before.hits == 5


def test_a_fact_that_is_taught_again_later_is_counted_once(tiny_shop):
    other = [{"subject": "Mira", "prompt": "Mira lives in", "target_new": "Bonn"}]
    for rows in (MORE, other):
        carry_out(tiny_shop, rows=rows)
    last = carry_out(tiny_shop, rows=MORE)
    course = tiny_shop.measure(last).course
    assert course is None or not course.cohorts


def test_prompts_longer_than_the_positions_of_the_model_are_refused(tiny_shop):
    model, tokenizer = tiny_shop.load("v0")
    fact = Fact(subject="Ada", prompt="x " * 230 + "Ada lives in", target_new="Rome")
    check_lengths(model, tokenizer, [fact])
    model.config.max_position_embeddings = 400
    with pytest.raises(RequestError, match="1 facts are longer than 400 positions"):
        check_lengths(model, tokenizer, [fact])
    model.config.max_position_embeddings = 500
    check_lengths(model, tokenizer, [fact])
    with pytest.raises(RequestError, match="a sentence before"):
        check_lengths(model, tokenizer, [fact], ("", "A sentence of some length. "))
    tiny_shop.unload()


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


def test_an_edit_that_a_limit_ended_ends_there_again_after_an_interruption(tiny_shop, monkeypatch):
    (tiny_shop.folder / "policy.toml").write_text(LAX + "sigma_ratio=1e-9\n")
    plan, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, stop_at_limit=True))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(tiny_shop.archive), "commit", interrupted)
        tiny_shop.carry_out(plan, actor="kato")
    ended = tiny_shop.carry_out(plan, actor="kato")
    assert [fact.subject for fact in tiny_shop.facts(ended)] == ["Ada", "Lyon"]
    assert ended.manifest.recipe["stopped"] == {"after": 2, "of": 6}


def test_a_limit_that_the_last_batch_passes_stops_nothing(tiny_shop):
    (tiny_shop.folder / "policy.toml").write_text(LAX + "sigma_ratio=1e-9\n")
    version = carry_out(tiny_shop, ROWS[:2], stop_at_limit=True)
    assert "singular value" in version.manifest.recipe["limit"] and version.manifest.recipe["stopped"] is None


def test_a_batch_that_was_solved_and_not_looked_at_is_looked_at_later(tiny_shop):
    plan, _ = tiny_shop.plan(ROWS, Settings(config=QUICK, batch_size=2, rescore=2, restraint="none"))

    def interrupt(stage, _done, _total):
        if stage == "asking earlier facts again" and (tiny_shop.folder / "work" / plan.digest / "course.json").exists():
            raise KeyboardInterrupt

    tiny_shop.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        tiny_shop.carry_out(plan, actor="kato")
    tiny_shop.progress = lambda *_: None
    seen = course(tiny_shop, tiny_shop.carry_out(plan, actor="kato"))
    assert [row["facts"] for row in seen["growth"]] == sorted(row["facts"] for row in seen["growth"])
    assert {row["facts"] for row in seen["growth"]} == {row["taught"] for row in seen["cohorts"]} == {2, 4, 6}


def test_what_would_be_stored_is_held_against_the_limit(tiny_shop, monkeypatch):
    """The restraint keeps σ_max(ΔW) at the limit; without it the first batch alone is beyond."""
    monkeypatch.setattr("perdure.workspace.updates.base_ceiling", lambda *_: 0.01)
    free = carry_out(tiny_shop, config=EAGER, restraint="none")
    beyond = max(row["sigma_ratio"] for row in course(tiny_shop, free)["growth"])
    (tiny_shop.folder / "policy.toml").write_text(LAX + f"sigma_ratio={beyond / 2}\n")
    flat = {"form": "scale_free", "alpha": 1e12}
    plan, _ = tiny_shop.plan(
        ROWS, Settings(config=EAGER, batch_size=2, restraint_config=flat, stop_at_limit=True), on="v0"
    )
    version = tiny_shop.carry_out(plan, actor="kato")
    assert len(tiny_shop.facts(version)) == 6 and "limit" not in version.manifest.recipe
    assert max(row["sigma_ratio"] for row in course(tiny_shop, version)["growth"]) < beyond / 2


def test_another_old_answer_or_end_is_another_edit(tiny_shop):
    def digest(rows=ROWS, **more):
        return tiny_shop.plan(rows, Settings(config=QUICK, **more), on="v0")[0].digest

    assert digest([{**ROWS[0], "target_true": "Paris"}]) != digest(ROWS[:1]) != digest(ROWS[:1], stop_at_limit=True)
    assert digest([{**ROWS[0], "source": "a.jsonl:1"}]) == digest([{**ROWS[0], "source": "b.jsonl:1"}])


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


def test_auto_counts_what_is_lost_since_the_base(tiny_shop):
    """The curve of an edit that changes next to nothing on an edited parent holds what the parent lost already."""
    carry_out(tiny_shop, config={**EAGER, "layers": [0, 1]}, restraint="none")
    least = {"values": {"steps": 2, "clamp": 1e-6}, "contexts": 0}
    second = carry_out(tiny_shop, rows=MORE, config=least, restraint="auto")
    assert course(tiny_shop, second)["trade_off"][0]["divergence"] > 1e-3


def test_strengths_mean_the_same_in_every_unit_of_the_weights():
    values = torch.tensor([0.5, 3.0, 6.0], dtype=torch.float64)
    for _, config in _strengths()[1:]:
        found = [
            contract(values * unit, config["ceiling"] * unit, config["form"], config["alpha"]) / unit
            for unit in (1e-3, 1.0, 24.0)
        ]
        torch.testing.assert_close(found[0], found[1])
        torch.testing.assert_close(found[1], found[2])


def point(name, divergence):
    return TradeOff(restraint=name, config={}, kept=share_of([True]), divergence=divergence)


def test_a_strength_without_a_finite_loss_is_not_taken():
    chosen = choose([point("none", float("nan")), point("prune", 0.1)])
    assert [(found.restraint, found.chosen) for found in chosen] == [("prune", True)]
    with pytest.raises(EditError, match="NaN at every strength"):
        choose([point("none", float("nan"))])


@pytest.mark.parametrize("more", [{"restraint_config": {"alpha": 2.0}}, {"each_batch": True}])
def test_auto_takes_no_settings(tiny_shop, tmp_path, more):
    with pytest.raises(SettingError, match="auto chooses"):
        tiny_shop.plan(write_facts(tmp_path / "facts.jsonl"), Settings(restraint="auto", **more))


def test_earlier_facts_are_asked_after_a_number_of_facts(tiny_shop):
    with pytest.raises(SettingError, match="0 for never"):
        tiny_shop.plan(ROWS, Settings(rescore=-1))
