"""Which skills a new task puts at risk: likeness of vectors, least alike first."""

import pytest
import torch

import tiny as models
from perdure.measuring import skill_risk
from perdure.measuring.skill_comparison import Bench, Side
from perdure.measuring.skill_risk import rank_risk
from perdure.models import layout_of
from perdure.requests.functions import Function, Pair
from perdure.vectors import Traits, VectorConfig, function_vector, similarity
from perdure.vectors.studies import Evidence

SMALL = VectorConfig(shots=2, clean=6, shuffled=4, heads=3, validation=3, asked=3)
INPUTS = [f"{a}{b}" for a in "abcde" for b in "fghij"]


def function(name, place):
    return Function(name, tuple(Pair(input=text, output=text[place] + name[0]) for text in INPUTS))


@pytest.fixture
def side(tokenizer):
    model = models.llama()
    return Side("v0", "0" * 64, lambda: (model, tokenizer))


def traits(name, seed, reason=""):
    generator = torch.Generator().manual_seed(seed)
    effects = torch.zeros(4, 4, dtype=torch.float64)
    effects[2, 1], effects[3, 0], effects[1, 1] = 3, 2, 1
    return Traits(name, Evidence((True,), (False,), reason), torch.randn(4, 4, 8, generator=generator), effects)


def test_the_least_like_comes_first_and_what_cannot_be_done_is_named(side, tmp_path, monkeypatch):
    made = {"alpha": traits("alpha", 1), "beta": traits("beta", 2), "gamma": traits("gamma", 3, "too weak")}
    monkeypatch.setattr(skill_risk, "traits_of", lambda _side, one, _bench: made[one.name])
    seen = {}

    def means(model, prompts, **more):
        seen.update(more, prompts=len(prompts))
        return type("Found", (), {"mean_LHK": made["alpha"].mean_LHK * 2})

    monkeypatch.setattr(skill_risk, "mean_activations", means)
    task = function("new", 0)
    found = rank_risk(side, task, [function(name, 1) for name in made], Bench(SMALL, tmp_path))
    assert [skill.name for skill in found.skills] == ["beta", "alpha"]
    assert found.skills[1].similarity == pytest.approx(1, abs=1e-6)
    layout = layout_of(side.load()[0])
    vectors = [function_vector(layout, made[name].mean_LHK, found.heads) for name in ("alpha", "beta")]
    assert found.skills[0].similarity == pytest.approx(similarity(*vectors), abs=1e-5)
    assert found.heads == ((2, 1), (3, 0), (1, 1))
    assert found.left_out == {"gamma": "too weak"}
    assert (seen["only_right"], seen["prompts"]) == (False, 6)


def test_the_task_itself_is_no_skill_at_risk(side, tmp_path, monkeypatch):
    asked = []

    def remember(_side, one, _bench):
        asked.append(one.name)
        return traits(one.name, 1)

    monkeypatch.setattr(skill_risk, "traits_of", remember)
    task = function("new", 0)
    found = rank_risk(side, task, [function("other", 1), Function("same pairs", task.pairs)], Bench(SMALL, tmp_path))
    assert asked == ["other"]
    assert [skill.name for skill in found.skills] == ["other"]
    assert -1 <= found.skills[0].similarity <= 1
