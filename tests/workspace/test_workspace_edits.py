import hashlib

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from perdure import Workspace
from perdure.deltas import changed, singular_values
from perdure.errors import RefusedError, RequestError, SettingError, UnknownNameError, WorkspaceError
from perdure.workspace import Settings
from perdure.workspace.updates import applied_since_base, base_ceiling, solved_since_base
from shops import FACTS, MORE, QUICK, write_facts


def edit(tiny_shop, facts=FACTS, **more):
    return tiny_shop.edit(facts, config=QUICK, actor="kato", **more)


def weights(tiny_shop, version):
    return tiny_shop.archive.tensors(tiny_shop.version(version))


def test_an_edit_makes_a_candidate_and_touches_nothing_else(tiny_shop):
    before = weights(tiny_shop, "v0")
    version = edit(tiny_shop)
    assert (version.name, version.status, version.requester) == ("v1", "candidate", "kato")
    assert tiny_shop.archive.aliases()["production"].name == "v0"
    after = weights(tiny_shop, "v1")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith("1.mlp.down_proj.weight")}
    assert [fact.target_new for fact in tiny_shop.facts(version)] == ["Manila", "Dutch", "red"]
    assert [entry.action for entry in tiny_shop.archive.log()][-1] == "commit"


def test_the_same_edit_is_the_same_version(tiny_shop):
    assert edit(tiny_shop, on="v0").id == edit(tiny_shop, on="v0").id
    assert len(tiny_shop.archive.versions()) == 2


def test_the_running_model_has_the_stored_bits(tiny_shop):
    version = edit(tiny_shop)
    model, _ = tiny_shop.load(version)
    stored = weights(tiny_shop, version)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, stored[name])


def test_later_edits_know_the_keys_of_earlier_ones_and_undo_takes_them_away(tiny_shop):
    first = edit(tiny_shop)
    second = edit(tiny_shop, MORE)
    assert second.parent == first.id
    keys = solved_since_base(tiny_shop.archive, second).keys
    assert all(key.shape[1] == 4 for key in keys.values())
    on_base = edit(tiny_shop, MORE, on="v0")
    assert all(key.shape[1] == 1 for key in solved_since_base(tiny_shop.archive, on_base).keys.values())
    assert on_base.id != second.id


@pytest.mark.parametrize("alpha", [1.2, 50.0])
def test_restraint_holds_for_the_accumulated_update(tiny_shop, monkeypatch, alpha):
    # A low ceiling makes the restraint bite on this small model.
    monkeypatch.setattr("perdure.workspace.updates.base_ceiling", lambda *_: 0.05)
    settings = Settings(config=QUICK, restraint_config={"alpha": alpha, "form": "clamped"})
    for facts in (FACTS, MORE):
        tiny_shop.carry_out(tiny_shop.plan(facts, settings)[0], actor="kato")
    base, last = weights(tiny_shop, "v0"), weights(tiny_shop, "v2")
    solved = solved_since_base(tiny_shop.archive, tiny_shop.version("v2"))
    applied = applied_since_base(tiny_shop.archive, tiny_shop.version("v2"))
    for name, change in solved.changes.items():
        raw = singular_values(change)
        expected = torch.minimum(raw, (raw.clamp(min=0.05) / 0.05).log() / torch.tensor(alpha).log() + 0.05)
        found = torch.linalg.svdvals(last[name].double() - base[name].double())
        torch.testing.assert_close(found[:4], expected[:4].sort(descending=True).values, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(changed(base[name], applied.changes[name]), last[name], rtol=0, atol=1e-6)


def test_restraint_leaves_small_updates_alone(tiny_shop):
    plain = edit(tiny_shop, restraint="none", on="v0")
    restrained = edit(tiny_shop, restraint="prune", on="v0")
    name = next(iter(tiny_shop.archive.solved(plain).changes))
    assert base_ceiling(tiny_shop.archive, tiny_shop.version("v0"), name) > 0
    if singular_values(tiny_shop.archive.solved(plain).changes[name])[0] < base_ceiling(
        tiny_shop.archive, tiny_shop.version("v0"), name
    ):
        assert torch.equal(weights(tiny_shop, plain)[name], weights(tiny_shop, restrained)[name])


def test_fine_tuning_is_a_delta_too_and_can_be_edited_on(tiny_shop):
    tuned = tiny_shop.edit(
        FACTS, editor="fine_tuning", restraint="none", config={"steps": 2, "layers": [0]}, actor="kato"
    )
    after = edit(tiny_shop, MORE)
    assert after.parent == tuned.id
    applied = applied_since_base(tiny_shop.archive, after)
    base, last = weights(tiny_shop, "v0"), weights(tiny_shop, after)
    for name, change in applied.changes.items():
        torch.testing.assert_close(changed(base[name], change), last[name], rtol=0, atol=1e-6)
    assert {name for name in base if not torch.equal(base[name], last[name])} == set(applied.changes)


def test_measure_report_approve_promote_rollback(tiny_shop):
    version = edit(tiny_shop)
    with pytest.raises(WorkspaceError, match="has no report"):
        tiny_shop.approve(version, actor="mori")
    report = tiny_shop.measure(version, actor="kato")
    assert report.edits.facts == 3
    assert report.retention.overall.after.n == 24 + 1 + 1 + 1
    assert report.matrices[0].rank == 3
    assert report.verdict in {"pass", "fail", "inconclusive"}
    assert tiny_shop.report("v1") == report
    (tiny_shop.folder / "policy.toml").write_text(
        "[edits]\nlearnt=0\nasked_differently=0\nneighbours_lost=1\n[retention]\noverall_lost=1\ncapability_lost=1\n"
        "[language]\nperplexity_ratio=1000\n[weights]\ncondition_ratio=1e9\nnorm_ratio=1e9\n"
    )
    with pytest.raises(RefusedError):
        tiny_shop.promote(version, "production", actor="sato")
    report = tiny_shop.measure(version, actor="kato")
    assert report.verdict == "pass"
    with pytest.raises(RefusedError):
        tiny_shop.approve(version, actor="kato")
    tiny_shop.approve(version, actor="mori")
    tiny_shop.promote(version, "production", actor="sato")
    assert tiny_shop.archive.aliases()["production"].name == "v1"
    assert tiny_shop.rollback("production", actor="sato").name == "v0"
    assert tiny_shop.archive.verify().ok


def test_a_failing_candidate_cannot_be_approved(tiny_shop):
    version = edit(tiny_shop)
    assert tiny_shop.measure(version, actor="kato").verdict == "fail"  # a random model learns nothing in four steps
    with pytest.raises(RefusedError, match="fails its gates"):
        tiny_shop.approve(version, actor="mori")


def test_outcomes_are_measured_once(tiny_shop, monkeypatch):
    version = edit(tiny_shop)
    first = tiny_shop.measure(version, actor="kato")
    monkeypatch.setattr(Workspace, "load", lambda *_: pytest.fail("a model was run again"))
    again = tiny_shop.measure(version, actor="kato")
    assert again.model_dump(exclude={"seconds"}) == first.model_dump(exclude={"seconds"})


def test_a_report_three_versions_on_also_stands_against_the_base(tiny_shop):
    edit(tiny_shop)
    second = edit(tiny_shop, MORE)
    report = tiny_shop.measure(second, actor="kato")
    assert (report.parent, report.base) == ("v1", "v0")
    assert report.retention.overall.against_base is not None
    assert report.language.ratio_to_base is not None


def test_export_loads_with_transformers(tiny_shop, tmp_path):
    version = edit(tiny_shop)
    tiny_shop.export(version, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, weight in weights(tiny_shop, version).items():
        assert torch.equal(model.state_dict()[name], weight)


def test_rollback_is_bit_exact(tiny_shop, tmp_path, tiny_folder):
    edit(tiny_shop)
    tiny_shop.promote("v1", "staging")
    tiny_shop.promote("v0", "staging")
    assert tiny_shop.rollback("staging").name == "v1"
    tiny_shop.export("v0", tmp_path / "back")
    one, two = (load_file(folder / "model.safetensors") for folder in (tiny_folder, tmp_path / "back"))

    def digest(tensors):
        return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}

    assert digest(one) == digest(two)


def test_an_interrupted_edit_changes_nothing_and_goes_on(tiny_shop):
    plan, _ = tiny_shop.plan(FACTS, Settings(config=QUICK, batch_size=1))
    log, seen = len(tiny_shop.archive.log()), []

    def interrupt(stage, done, total):
        if stage == "editing batches":
            seen.append(done)
            if done == 2:
                raise KeyboardInterrupt

    tiny_shop.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        tiny_shop.carry_out(plan, actor="kato")
    assert len(tiny_shop.archive.versions()) == 1
    assert len(tiny_shop.archive.log()) == log
    tiny_shop.progress = lambda stage, done, total: seen.append(done) if stage == "editing batches" else None
    resumed = Workspace.open(tiny_shop.folder, progress=tiny_shop.progress).carry_out(plan, actor="kato")
    assert seen == [1, 2, 3]
    assert not list((tiny_shop.folder / "work").iterdir())
    whole = tiny_shop.archive.solved(resumed)
    assert [len(batch["value_losses"]) for batch in whole.notes["batches"]] == [1, 1, 1]


def test_bad_requests_are_refused_before_anything_is_computed(tiny_shop, tmp_path):
    file = write_facts(tmp_path / "bad.jsonl", [*FACTS, {"subject": "X", "prompt": "no such word", "target_new": "y"}])
    with pytest.raises(RequestError, match=r"bad\.jsonl:4"):
        tiny_shop.edit(file, config=QUICK)
    plan, asked = tiny_shop.plan(file, Settings(config=QUICK), skip_bad=True)
    assert len(plan.facts) == 3
    assert len(asked.problems) == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'memit'"):
        tiny_shop.edit(FACTS, editor="mmit")
    with pytest.raises(SettingError, match="layers"):
        tiny_shop.edit(FACTS, config={"layers": [99]})
    with pytest.raises(RequestError, match="longer than 512 tokens"):
        long = "Lyon " + "very " * 150 + "is"
        tiny_shop.edit([{"subject": "Lyon", "prompt": long, "target_new": "red"}], config=QUICK)
    assert len(tiny_shop.archive.versions()) == 1


def test_a_rejected_version_is_not_edited_on(tiny_shop):
    edit(tiny_shop)
    tiny_shop.reject("v1", actor="mori", reason="wrong")
    assert tiny_shop.newest().name == "v0"
