"""Probes on frozen features: hand-worked cases, planted structure, and figures that hold at any scale."""

import numpy as np
import pytest

from perdure.errors import SettingError
from perdure.measuring.concept_probes import knn, linear_probe, split_off, unit_rows, zero_shot


def planted(seed=0, *, n=300, d=8, classes=3, noise=1.0, offset=0.0):
    drawn = np.random.default_rng(seed)
    labels = drawn.integers(0, classes, n)
    centres = 3 * np.eye(classes, d)
    return centres[labels] + noise * drawn.normal(size=(n, d)) + offset, labels


def test_a_linear_probe_finds_what_is_planted_and_nothing_in_noise():
    features, labels = planted()
    said = linear_probe(features[:200], labels[:200], features[200:])
    assert np.mean(said.predicted_M == labels[200:]) > 0.9
    drawn = np.random.default_rng(1)
    noise = drawn.normal(size=(400, 8))
    labels = drawn.integers(0, 2, 400)
    assert abs(np.mean(linear_probe(noise[:200], labels[:200], noise[200:]).predicted_M == labels[200:]) - 0.5) < 0.12


def test_it_is_the_penalised_regression_on_unit_features_with_its_strength_in_another_unit():
    from sklearn.linear_model import LogisticRegression

    features, labels = planted(noise=2.0, offset=4.0)
    unit = unit_rows(features)
    spread = np.mean(np.sum((unit[:200] - unit[:200].mean(0)) ** 2, 1))
    same = LogisticRegression(C=10 / spread, tol=1e-8, max_iter=10_000).fit(unit[:200], labels[:200])
    said = linear_probe(features[:200], labels[:200], features[200:], strengths=(10.0,)).predicted_M
    assert np.mean(said == same.predict(unit[200:])) >= 0.99


def test_a_common_direction_and_a_scale_change_nothing():
    features, labels = planted(noise=1.5)
    long = np.hstack([features, np.full((len(features), 1), 2.0)])
    plain = linear_probe(long[:200], labels[:200], long[200:])
    scaled = linear_probe(7 * long[:200], labels[:200], long[200:] / 3)
    assert np.array_equal(plain.predicted_M, scaled.predicted_M)
    narrow = np.hstack([features, np.full((len(features), 1), 300.0)])  # all rows within a narrow cone
    right = [
        np.mean(linear_probe(given[:200], labels[:200], given[200:]).predicted_M == labels[200:])
        for given in (long, narrow)
    ]
    assert right[1] > right[0] - 0.05


def test_the_strength_is_chosen_on_rows_that_the_fit_has_not_seen():
    features, labels = planted(n=120, d=100, noise=2.0)
    said = linear_probe(features, labels, features)
    assert said.validated < 1.0  # a probe that looked at its own rows would say 1
    assert said.strength in (0.1, 1.0, 10.0, 100.0, 1000.0)
    assert linear_probe(features, labels, features, strengths=(10.0, 10.0)).strength == 10.0


def test_the_same_rows_give_the_same_probe():
    features, labels = planted(noise=2.0)
    first, second = (linear_probe(features[:200], labels[:200], features[200:], seed=3) for _ in range(2))
    assert np.array_equal(first.predicted_M, second.predicted_M)


@pytest.mark.parametrize(
    ("train", "labels", "test", "said"),
    [
        (np.ones((3, 2)), np.zeros(3, int), np.ones((1, 2)), "two classes"),
        (np.ones((3, 2)), np.zeros(2, int), np.ones((1, 2)), "3 rows and 2 labels"),
        (np.ones((3, 2)), np.arange(3), np.ones((1, 4)), "of one size"),
    ],
)
def test_what_cannot_be_probed_is_said(train, labels, test, said):
    with pytest.raises(SettingError, match=said):
        linear_probe(train, labels, test)


def test_a_split_keeps_each_class_on_both_sides():
    labels = np.array([0] * 10 + [1] * 2 + [2])
    stay, away = split_off(labels, 0.2, 0)
    assert sorted([*stay, *away]) == list(range(13))
    assert [int(np.sum(labels[away] == each)) for each in range(3)] == [2, 1, 0]
    assert np.array_equal(away, split_off(labels, 0.2, 0)[1])


def at(degrees):
    angle = np.deg2rad(np.atleast_1d(degrees))
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_the_nearest_neighbours_vote_by_their_cosine():
    train, labels = at([0, 40, 42, 90]), np.array([0, 1, 1, 2])
    assert knn(train, labels, at(5), neighbours=1)[0] == 0
    # cos 5° = .9962, cos 35° = .8192, cos 37° = .7986: at a high temperature two outvote one, at .07 they do not.
    assert knn(train, labels, at(5), neighbours=3, temperature=10.0)[0] == 1
    assert knn(train, labels, at(5), neighbours=3, temperature=0.07)[0] == 0
    assert knn(train, labels, at(5), neighbours=50, temperature=10.0)[0] == 1  # more than there are
    assert np.array_equal(knn(9 * train, labels, at([5, 41, 88]) / 5, neighbours=1), [0, 1, 2])


def test_zero_shot_takes_the_class_of_the_largest_cosine():
    assert np.array_equal(zero_shot(5 * at([10, 80, 46]), at([0, 90]) * np.array([[1], [100]])), [0, 1, 1])
    with pytest.raises(SettingError, match="size 2 and class weights of 3"):
        zero_shot(at(1), np.ones((2, 3)))
