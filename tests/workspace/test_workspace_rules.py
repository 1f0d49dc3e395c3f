"""Rules that hold between edits, reports, policies and decisions."""

import pytest
import torch

import tiny as models
import vector_sample
from perdure import Workspace
from perdure.errors import ModelError, RefusedError, SettingError
from perdure.models import Checkpoint
from perdure.workspace import Archive, Settings
from perdure.workspace.opened import current_user
from shops import FACTS, LAX, MORE, QUICK


def test_approval_judges_by_the_policy_that_it_signs(tiny_shop):
    file = tiny_shop.folder / "policy.toml"
    strict = file.read_text()
    file.write_text(LAX)
    version = tiny_shop.edit(FACTS, config=QUICK, actor="kato")
    assert tiny_shop.measure(version, actor="kato").verdict == "pass"
    file.write_text(strict)
    with pytest.raises(RefusedError, match="fails its gates"):
        tiny_shop.approve(version, actor="mori")
    file.write_text(LAX)
    tiny_shop.approve(version, actor="mori")
    file.write_text(strict)
    with pytest.raises(RefusedError):
        tiny_shop.promote(version, "production")  # the consent was given under another policy


def test_more_questions_about_the_same_facts_are_asked_again(tiny_shop):
    first = tiny_shop.edit(FACTS, config=QUICK, on="v0", actor="kato")
    assert tiny_shop.measure(first, actor="kato").edits.facts == 3
    rows = [{**FACTS[0], "paraphrases": ["Lyon's twin is", "Lyon is twinned with"]}, FACTS[1]]
    second = tiny_shop.edit(rows, config=QUICK, on="v0", actor="kato")
    cases = tiny_shop.measure(second, actor="kato").edits.cases
    assert {"Lyon's twin is", "Lyon is twinned with"} <= {case.prompt for case in cases}


def test_nothing_is_built_on_a_rejected_lineage(tiny_shop):
    tiny_shop.edit(FACTS, config=QUICK, actor="kato")
    tiny_shop.edit(MORE, config=QUICK, actor="kato")
    tiny_shop.reject("v1", actor="mori", reason="wrong")
    assert tiny_shop.newest().name == "v0"
    for version in ("v1", "v2"):
        with pytest.raises(RefusedError, match="v1, which was rejected"):
            tiny_shop.edit(MORE, config=QUICK, on=version)


def test_an_interruption_after_the_last_batch_gives_the_same_version(tiny_shop, monkeypatch):
    plan, _ = tiny_shop.plan(FACTS, Settings(config=QUICK, batch_size=1))
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny_shop.carry_out(plan, actor="kato")
    assert list((tiny_shop.folder / "work").iterdir())
    resumed = tiny_shop.carry_out(plan, actor="kato")
    assert tiny_shop.carry_out(plan, actor="kato").id == resumed.id


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_every_family_goes_in_and_comes_out(family, tmp_path, tokenizer, quick_suite):
    from transformers import AutoModelForCausalLM

    source = tmp_path / "source"
    original = models.FAMILIES[family]()
    original.save_pretrained(source)
    tokenizer.save_pretrained(source)
    shop = Workspace.init(tmp_path / "shop", source, actor="sato")
    version = shop.edit(FACTS, config=QUICK, actor="kato")
    shop.measure(version, actor="kato")
    for name in ("v0", "v1"):
        shop.export(name, tmp_path / name)
    ids = torch.tensor([[5, 9, 3]])
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "v0").eval()
    torch.testing.assert_close(back(ids).logits, original(ids).logits, rtol=0, atol=0)
    edited = AutoModelForCausalLM.from_pretrained(tmp_path / "v1").eval()
    assert not torch.equal(edited(ids).logits, original(ids).logits)
    assert not list(tmp_path.glob(".perdure-*"))


def test_diff_says_when_dtypes_differ(tmp_path, tokenizer):
    from perdure.workspace.differences import diff_checkpoints

    for name, dtype in (("a", torch.float32), ("b", torch.bfloat16)):
        models.llama().to(dtype).save_pretrained(tmp_path / name)
    for pair in ("ab", "ba"):
        with pytest.raises(ModelError, match="bfloat16"):
            diff_checkpoints(*(str(tmp_path / name) for name in pair))


def test_stray_weights_are_left_alone(tmp_path, tiny_folder):
    import shutil

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "consolidated.safetensors").write_bytes(b"another layout of the same weights")
    assert [path.name for path in Checkpoint.open(folder).shards] == ["model.safetensors"]


def test_who_has_no_name_here_is_asked_for_one(monkeypatch):
    def unnamed():
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", unnamed)
    monkeypatch.delenv("PERDURE_USER", raising=False)
    with pytest.raises(SettingError, match="--as NAME"):
        current_user()
    monkeypatch.setenv("PERDURE_USER", "kato")
    assert current_user() == "kato"


@pytest.mark.parametrize("broken", ["perdure.workspace.workspace.write_atomic", "perdure.workspace.Archive.promote"])
def test_a_creation_that_broke_off_is_finished_when_it_is_opened(tmp_path, tiny_folder, monkeypatch, broken):
    def full(*_given, **_named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(broken, full)
        with pytest.raises(OSError, match="No space"):
            Workspace.init(tmp_path / "shop", tiny_folder, actor="sato")
    shop = Workspace.open(tmp_path / "shop")
    assert shop.archive.aliases()["production"].name == "v0"
    assert shop.policy.approvers("production") == 1
    assert [(row.action, row.actor) for row in shop.archive.log()] == [
        ("create", "sato"), ("policy", "sato"), ("promote", "sato"),
    ]  # fmt: skip


def test_a_policy_of_other_limits_is_not_put_back_by_the_default(tiny_shop):
    tiny_shop.set_policy(LAX, actor="sato")
    (tiny_shop.folder / "policy.toml").unlink()
    with pytest.raises(SettingError, match=r"policy\.toml cannot be read"):
        _ = Workspace.open(tiny_shop.folder).policy


def test_a_broken_policy_is_told_before_anything_is_solved(tiny_shop, monkeypatch):
    monkeypatch.setattr("perdure.workspace.edits.solve", lambda *_, **__: pytest.fail("something was solved"))
    (tiny_shop.folder / "policy.toml").write_text("[edits")
    with pytest.raises(SettingError, match="no TOML"):
        tiny_shop.edit(FACTS, config=QUICK)


def test_who_may_not_do_it_is_told_before_the_work(tiny_shop, tmp_path, monkeypatch):
    (tmp_path / "task.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    tiny_shop.grant("sato", "admin", by="sato")
    monkeypatch.setattr(tiny_shop, "load", lambda *_: pytest.fail("a model was loaded"))
    for refused in (
        lambda: tiny_shop.edit(FACTS, config=QUICK, actor="kato"),
        lambda: tiny_shop.tune(tmp_path / "task.jsonl", actor="kato"),
        lambda: tiny_shop.measure("v0", actor="kato"),
        lambda: tiny_shop.recover("v0", vector_sample.function(), actor="kato"),
    ):
        with pytest.raises(RefusedError, match="kato has no role"):
            refused()
