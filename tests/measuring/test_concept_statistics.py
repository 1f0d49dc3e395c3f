"""Intervals over sets and over many classes: hand-worked cases, and that chance raises no alarm."""

import math
import random

import pytest

from perdure.errors import SettingError
from perdure.measuring.concept_statistics import holm, joint_difference, mean_difference_of_sets, sign_test
from perdure.measuring.statistics import paired_difference


def pair(gained, lost, same):
    return [False] * gained + [True] * lost + [True] * same, [True] * gained + [False] * lost + [True] * same


def test_the_mean_over_one_set_is_its_difference():
    assert mean_difference_of_sets([pair(3, 10, 87)]) == paired_difference(*pair(3, 10, 87))


def test_each_set_counts_alike_and_their_variances_add():
    # Adjusted by one each: (1/102, 11/102) and (6/52, 1/52).
    found = mean_difference_of_sets([pair(0, 10, 90), pair(5, 0, 45)])
    assert found.value == pytest.approx((-0.1 + 0.1) / 2)
    assert found.n == 150
    variances = ((12 / 102 - (10 / 102) ** 2) / 102, (7 / 52 - (5 / 52) ** 2) / 52)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * math.sqrt(sum(variances)) / 2)
    with pytest.raises(SettingError, match="at least one set"):
        mean_difference_of_sets([])


def test_intervals_that_hold_together_are_wider_the_more_there_are():
    alone, ten, hundred = (joint_difference(*pair(2, 9, 89), count) for count in (1, 10, 100))
    assert alone == paired_difference(*pair(2, 9, 89))
    assert alone.low > ten.low > hundred.low
    assert ten.value == alone.value == pytest.approx(-0.07)
    assert (ten.high - ten.low) / (alone.high - alone.low) == pytest.approx(2.807034 / 1.959964, abs=1e-6)


@pytest.mark.parametrize(
    ("gained", "lost", "chance"), [(0, 5, 0.0625), (5, 0, 0.0625), (0, 0, 1.0), (3, 3, 1.0), (1, 8, 20 / 512)]
)
def test_the_sign_test_counts_coins(gained, lost, chance):
    assert sign_test(*pair(gained, lost, 20)) == pytest.approx(chance)


def test_holm_corrects_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([]) == ()
    assert holm([0.5, 0.9]) == (1.0, 1.0)


def test_of_many_classes_in_which_nothing_happened_none_is_called_worse():
    drawn, alarms, plain = random.Random(0), 0, 0
    for _ in range(200):
        chances = []
        for _ in range(40):
            moved = sum(drawn.random() < 0.5 for _ in range(12))
            chances.append(sign_test(*pair(moved, 12 - moved, 20)))
        alarms += min(holm(chances)) <= 0.05
        plain += min(chances) <= 0.05
    assert alarms <= 10  # 5% of 200
    assert plain > 100  # uncorrected, most such reports would accuse a class
