"""The benchmark of AlphaEdit's null space counts what the formula says."""

import pytest
import torch
from bench.null_space import Trial, disturbance, on_paper

from perdure.editing import Moments
from perdure.editing.solving import alphaedit_update, null_space
from perdure.editing.statistics import Eigenbasis, SecondMoment
from perdure.requests import Fact

TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
FACTS = [
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila", target_true="Beirut"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch", target_true="Danish"),
]


def test_the_disturbance_is_that_of_the_change_which_is_made():
    draw = torch.Generator().manual_seed(0)
    text = torch.randn(9, 200, dtype=torch.float64, generator=draw)
    moment = SecondMoment(text @ text.T / 200, 200)
    basis = Eigenbasis.of(moment)
    key = torch.randn(9, 1, dtype=torch.float64, generator=draw)
    space = null_space(basis, share=0.4)
    left, right = alphaedit_update(torch.ones(1, 1).double(), key, None, space.basis, 1e-13)
    change = left @ right
    least = 1 / (key.T @ torch.linalg.solve(moment.matrix, key))
    expected = change @ moment.matrix @ change.T / least
    assert disturbance(basis, key, space) == pytest.approx(float(expected), rel=1e-9)
    assert float(expected) > 1


def test_the_calibrated_space_is_near_the_best(tiny):
    (row,) = on_paper(*tiny, FACTS, [1], Moments(lambda: tiny, TEXTS))
    assert 1 <= row["best"] <= row["calibrated"]
    assert 0 < row["dimension"] <= 48
    assert row["facts"] == 2


def test_a_trial_gives_the_model_back(tiny, small_suite, monkeypatch):
    monkeypatch.setattr("bench.null_space.Suite.built_in", lambda: small_suite)
    trial = Trial(*tiny, FACTS, Moments(lambda: tiny, TEXTS))
    before = trial.measure()
    row = trial.run("calibrated", {"ridge": 0.5})
    assert row["perplexity"] != before["perplexity"]
    assert row["sigma_max"] > 0
    assert set(trial.values) == {fact.id for fact in FACTS}
    assert trial.measure() == before
