"""Clusters: planted groups are found, their number too, and what lies beyond every group is unknown."""

import numpy as np
import pytest

from perdure.errors import SettingError
from perdure.measuring.clusters import (
    NOWHERE,
    Groups,
    Stability,
    adjusted_rand,
    chosen_count,
    directions,
    grouped,
    means,
    nearest,
    nearest_words,
    row_weights,
    shares,
    spherical_kmeans,
    stability,
    typical,
)


def planted(groups=5, each=40, size=16, spread=0.05, seed=0):
    """Rows of length one around orthogonal directions, shuffled, with the group of each."""
    drawn = np.random.default_rng(seed)
    labels = drawn.permutation(np.repeat(np.arange(groups), each))
    rows = np.eye(size)[labels] + spread * drawn.normal(size=(groups * each, size))
    return directions(rows), labels


def test_directions_are_of_length_one_and_free_of_what_they_share():
    rows = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert directions(rows) == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))
    shifted = directions(np.array([[10.0, 1.0], [10.0, -1.0]]), np.array([10.0, 0.0]) / np.hypot(10, 1))
    assert shifted == pytest.approx(np.array([[0.0, 1.0], [0.0, -1.0]]))


def test_the_scale_of_a_row_says_nothing():
    rows, _ = planted()
    scaled = rows * np.random.default_rng(1).uniform(0.1, 50, size=(len(rows), 1))
    assert directions(scaled) == pytest.approx(rows)


def test_spherical_kmeans_finds_planted_groups():
    rows, labels = planted()
    centres = spherical_kmeans(rows, 5, seed=3)
    assert np.linalg.norm(centres, axis=1) == pytest.approx(np.ones(5))
    assert adjusted_rand(nearest(rows, centres)[0], labels) == 1.0
    assert np.array_equal(centres, spherical_kmeans(rows, 5, seed=3))


def test_centres_are_where_no_step_raises_the_sum_of_cosines():
    rows, _ = planted(spread=0.5)
    centres = spherical_kmeans(rows, 4, seed=0)
    assigned, cosines = nearest(rows, centres)
    moved = means(rows, assigned, centres)
    assert nearest(rows, moved)[1].sum() == pytest.approx(cosines.sum())


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(SettingError, match="5 clusters of 3 rows"):
        spherical_kmeans(np.eye(3), 5)


def test_the_planted_number_is_the_most_stable_and_chosen():
    rows, _ = planted(groups=6, each=40, spread=0.15)
    found = [stability(rows, count, draws=3) for count in (2, 3, 6, 12, 24)]
    assert found[2].value > 0.99
    assert all(found[2].value > other.value + 0.05 for other in (found[3], found[4]))
    assert chosen_count(found) == 6


def test_noise_without_groups_is_not_stable():
    rows = directions(np.random.default_rng(0).normal(size=(300, 20)))
    assert stability(rows, 8, draws=3).value < 0.3


def test_of_equally_stable_numbers_the_largest_is_chosen():
    tried = [Stability(2, 0.90, 0.80), Stability(8, 0.83, 0.79), Stability(16, 0.81, 0.78), Stability(32, 0.7, 0.6)]
    assert chosen_count(tried) == 16
    assert chosen_count(tried, slack=0.0) == 2


def test_what_is_stable_in_some_draws_only_is_not_chosen():
    assert chosen_count([Stability(3, 0.8, 0.3), Stability(9, 0.7, 0.65)]) == 9
    with pytest.raises(SettingError):
        chosen_count([])


def test_the_adjusted_rand_index_by_hand():
    # Pairs together in both 2, in the first 4, in the second 4, of 15: (2 − 16/15) / (4 − 16/15) = 14/44.
    first, second = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 2])
    assert adjusted_rand(first, second) == pytest.approx(14 / 44)


def test_small_groups_are_dissolved_and_far_items_belong_nowhere():
    rows, labels = planted(groups=3, each=50, size=8, spread=0.02)
    few = directions(np.eye(8)[[6] * 4])  # a fourth, tiny group, far from the others
    every = np.vstack([rows, few])
    centres = np.eye(8)[[0, 1, 2, 6]]
    found = grouped(every, centres, least=10)
    assert found.centres_CD == pytest.approx(np.eye(8)[:3])
    assigned = found.assigned(every)
    assert (assigned[-4:] == NOWHERE).all()
    inside = assigned[:150] != NOWHERE
    assert inside.mean() >= 0.97
    assert (assigned[:150][inside] == labels[inside]).all()
    with pytest.raises(SettingError, match="the largest has 50"):
        grouped(every, centres, least=51)


def test_a_group_reaches_as_far_as_its_own_rows_but_for_the_share_outside():
    angles = np.linspace(0, 0.99, 100)
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = grouped(rows, np.array([[1.0, 0.0]]), least=2, outside=0.1)
    assert (found.assigned(rows) == 0).sum() == 90


def test_shares_count_by_weight_and_what_is_nowhere_is_missing():
    assert shares(np.array([0, 1, 1, NOWHERE]), [1, 2, 3, 4], 3) == pytest.approx([0.1, 0.5, 0.0])


def test_typical_items_are_the_nearest_first():
    rows = directions(np.array([[1.0, 0.5], [1.0, 0.1], [0.1, 1.0], [1.0, 0.3]]))
    assert typical(rows, np.array([0, 0, 1, 0]), np.array([1.0, 0.0]), 0, 2) == [1, 3]


def test_words_are_compared_by_what_tells_them_apart():
    # All words share a large part that no item has: it must not decide.
    words = np.array([[1.0, 0.0, 9.0], [-0.5, 0.9, 9.0], [-0.5, -0.9, 9.0]])
    centres = directions(np.array([[1.0, 0.0, 0.0], [-0.5, 0.8, 0.0]]))
    assert [row[0] for row in nearest_words(centres, words, 1)] == [0, 1]


def test_rows_of_protected_groups_weigh_more_and_others_one():
    assert row_weights([0, 1, NOWHERE, 1], {1: 3.0}) == (1.0, 3.0, 1.0, 3.0)
    assert row_weights([0, 1], {}) == (1.0, 1.0)
    with pytest.raises(SettingError, match=r"-1\.0"):
        row_weights([0], {0: -1.0})


def test_groups_assign_the_nearest_only_within_its_reach():
    groups = Groups(np.eye(2), np.array([0.9, 0.5]))
    rows = directions(np.array([[1.0, 0.1], [1.0, 0.9], [0.9, 1.0]]))
    assert groups.assigned(rows).tolist() == [0, NOWHERE, 1]
