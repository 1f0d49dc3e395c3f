"""A vector put into a version's weights: chosen on validation questions, stored, loaded, exported and undone."""

import json

import pytest
import torch

from perdure.errors import ModelError, RefusedError, RequestError, SettingError
from perdure.models import capture, layout_of, load
from perdure.requests.functions import Function, Pair
from perdure.vectors import VectorConfig
from perdure.vectors.studies import Evidence
from perdure.workspace import Workspace, recovering
from perdure.workspace.recovering import Tried, choose

SMALL = VectorConfig(shots=2, clean=6, shuffled=4, prefilter=4, heads=3, validation=3, asked=3)
PAIRS = tuple(Pair(input=f"{a}{b}", output=a) for a in "abcde" for b in "fghij")
FIRST, SECOND = (
    Function("first", PAIRS),
    Function("second", tuple(Pair(input=p.input, output=p.input[1]) for p in PAIRS)),
)


@pytest.fixture
def shop(tmp_path, tiny_folder):
    return Workspace.init(tmp_path / "shop", tiny_folder, actor="mori")


@pytest.fixture
def told(monkeypatch):
    """Every function counts as one that the model can do: a random model can do none."""
    monkeypatch.setattr(
        "perdure.vectors.studies.weigh", lambda clean, shuffled, margin: Evidence(tuple(clean), tuple(shuffled), "")
    )


@pytest.fixture
def helped(monkeypatch):
    """One of the ways counts as the best; what is tried is tried for real."""
    monkeypatch.setattr(recovering, "choose", lambda tried: next(one for one in tried if one.strength == 0.5))


def constant(monkeypatch):
    """The mean of every head is not zero, although a random model answers nothing rightly."""
    shape = (4, 4, 8)
    real = recovering.traits_of

    def traits(*args):
        found = real(*args)
        values = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        return type(found)(found.name, found.evidence, values, found.effect_LH)

    monkeypatch.setattr(recovering, "traits_of", traits)


@pytest.mark.parametrize("way", ["add", "subtract"])
def test_a_version_that_carries_a_vector_is_the_model_with_it_added(shop, told, helped, monkeypatch, way):
    constant(monkeypatch)
    version = shop.recover("v0", FIRST, way=way, others=[SECOND], config=SMALL, actor="kato")
    recipe = version.manifest.recipe
    assert (recipe["kind"], recipe["way"], recipe["function"], version.name) == ("injection", way, "first", "v1")
    assert {one["layer"] for one in recipe["tried"]} == {None, 1}
    assert recipe["questions"] == (6 if way == "add" else 3)  # the intruder itself is not asked
    ids = torch.tensor([[5, 9, 3, 7]])
    plain, _ = shop.load("v0", fresh=True)
    carrying, _ = shop.load("v1", fresh=True)
    layer = recipe["layer"]
    before, after = (
        capture(lambda model=model: model(ids), outputs={"b": layout_of(model).blocks[layer]})["b"]
        for model in (plain, carrying)
    )
    added = carrying.state_dict()[f"model.layers.{layer}.mlp.down_proj.bias"]
    assert added.norm() > 0.1
    torch.testing.assert_close(after, before + added, rtol=0, atol=1e-5)
    assert not torch.allclose(carrying(ids).logits, plain(ids).logits)


def test_it_is_a_version_like_any_other(shop, told, helped, monkeypatch, tmp_path):
    constant(monkeypatch)
    version = shop.recover("v0", FIRST, others=[SECOND], config=SMALL, actor="kato")
    assert shop.recover("v0", FIRST, others=[SECOND], config=SMALL, actor="kato").id == version.id
    assert shop.archive.verify().ok
    shop.export("v1", tmp_path / "out")
    exported, _ = load(tmp_path / "out")
    ids = torch.tensor([[5, 9, 3, 7]])
    assert torch.equal(exported(ids).logits, shop.load("v1")[0](ids).logits)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mlp_bias"] is True
    with pytest.raises(SettingError, match="Export it as a folder"):
        shop.export_delta("v1", tmp_path / "v1.delta")
    assert shop.archive.storage(version).added_bytes < 60_000


def test_a_second_vector_comes_on_top_of_the_first(shop, told, helped, monkeypatch):
    constant(monkeypatch)
    shop.recover("v0", FIRST, others=[SECOND], config=SMALL)
    again = shop.recover("v1", SECOND, others=[FIRST], config=SMALL)
    names = [f"model.layers.{v.manifest.recipe['layer']}.mlp.down_proj.bias" for v in (shop.version("v1"), again)]
    assert names[0] == names[1]
    first, second = (shop.archive.tensors(shop.version(v), [names[0]])[names[0]] for v in ("v1", again))
    torch.testing.assert_close(second, 2 * first)  # the same constant head means, so the same vector
    assert len(again.manifest.tensors) == len(shop.version("v1").manifest.tensors)


def test_a_difference_counts_what_only_one_of_them_has_as_zero(shop, told, helped, monkeypatch):
    from perdure.workspace.differences import diff_versions

    constant(monkeypatch)
    version = shop.recover("v0", FIRST, others=[SECOND], config=SMALL)
    for pair in ((shop.version("v0"), version), (version, shop.version("v0"))):
        moved = [move for move in diff_versions(shop, *pair).matrices if move.norm]
        assert [move.name for move in moved] == [f"model.layers.{version.manifest.recipe['layer']}.mlp.down_proj.bias"]


def test_what_cannot_be_done_in_context_has_no_vector(shop):
    with pytest.raises(RequestError, match="no vector for first: intact prompts"):
        shop.recover("v0", FIRST, others=[SECOND], config=SMALL)


def test_nothing_is_made_where_nothing_helps(shop, told, monkeypatch):
    constant(monkeypatch)
    monkeypatch.setattr(recovering, "answered", lambda model, prompts: [True] * len(prompts))
    with pytest.raises(RefusedError, match="6 validation questions are right as it is, at most 6 with the vector"):
        shop.recover("v0", FIRST, others=[SECOND], config=SMALL)
    assert shop.newest().name == "v0"


def test_the_most_right_answers_win_then_the_skill_itself_then_the_weakest():
    plain = Tried(None, 0.0, 10, 2)
    ways = [Tried(1, 0.5, 12, 3), Tried(1, 1.0, 12, 4), Tried(2, 0.5, 12, 4), Tried(2, 1.0, 9, 9)]
    assert choose([plain, *ways]) == Tried(2, 0.5, 12, 4)
    assert choose([plain, Tried(1, 0.5, 10, 3)]) == Tried(1, 0.5, 10, 3)
    with pytest.raises(RefusedError, match="10 validation questions"):
        choose([plain, Tried(1, 0.5, 10, 2)])


def test_blocks_that_scale_what_their_mlp_gives_carry_no_vector(tmp_path, tokenizer, told, monkeypatch):
    from transformers import GraniteConfig, GraniteForCausalLM

    constant(monkeypatch)
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1, residual_multiplier=0.22,
    )  # fmt: skip
    GraniteForCausalLM(config).save_pretrained(tmp_path / "granite")
    tokenizer.save_pretrained(tmp_path / "granite")
    shop = Workspace.init(tmp_path / "shop", tmp_path / "granite", actor="mori")
    with pytest.raises(ModelError, match="does not add its MLP"):
        shop.recover("v0", FIRST, way="subtract", others=[SECOND], config=SMALL, actor="kato")


def test_an_architecture_without_room_for_a_bias_is_refused():
    import tiny as models
    from perdure.vectors.bias import injection_of

    with pytest.raises(ModelError, match="no switch"):
        injection_of(layout_of(models.qwen3()), b'{"model_type": "qwen3"}', 1, torch.zeros(32))
    with pytest.raises(ModelError, match="no switch"):
        injection_of(layout_of(models.qwen3()), b'{"model_type": "stranger"}', 1, torch.zeros(32))
    older = injection_of(layout_of(models.llama()), b'{"model_type": "llama"}', 1, torch.zeros(32))
    assert older.config is not None and json.loads(older.config)["mlp_bias"] is True
    given = injection_of(layout_of(models.gpt2()), b"{}", 1, torch.ones(32))
    assert (given.name, given.added, given.config) == ("transformer.h.1.mlp.c_proj.bias", {}, None)
