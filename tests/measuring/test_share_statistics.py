import math

import pytest

from perdure.errors import SettingError
from perdure.measuring.statistics import (
    mean_difference,
    paired_difference,
    perplexity,
    perplexity_ratio,
    student_t,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits, n, low, high):
    share = wilson(hits, n)
    assert share.value == hits / n
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


def test_wilson_is_symmetric_and_reaches_the_ends():
    none, every = wilson(0, 20), wilson(20, 20)
    assert none.low == 0.0 and every.high == 1.0
    assert math.isclose(every.low, 1 - none.high)


def test_of_no_items_nothing_is_known():
    share, difference = wilson(0, 0), paired_difference([], [])
    assert (share.low, share.high) == (0.0, 1.0)
    assert (difference.value, difference.low, difference.high, difference.n) == (0.0, -1.0, 1.0, 0)


@pytest.mark.parametrize(("hits", "n"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(hits, n):
    with pytest.raises(SettingError, match="between 0 and n"):
        wilson(hits, n)


def _pairs(both, only_before, only_after, neither):
    before = [True] * (both + only_before) + [False] * (only_after + neither)
    after = [True] * both + [False] * only_before + [True] * only_after + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("cells", "value", "low", "high"),
    [  # Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), chapter 8:
        # Cavo et al. 2012 (59, 6, 16, 80), whose first column minus second is before minus after here
        ((59, 6, 16, 80), 0.0621, 0.0032, 0.1195),
        ((1, 1, 7, 12), 0.2857, 0.0134, 0.5084),  # Bentur et al. 2009
    ],
)
def test_paired_difference_gives_the_published_intervals(cells, value, low, high):
    found = paired_difference(*_pairs(*cells))
    assert [round(number, 4) for number in (found.value, found.low, found.high)] == [value, low, high]


def test_a_difference_of_items_that_all_stay_has_a_width():
    found = paired_difference([True] * 8, [True] * 8)
    reach = 1.959964 * math.sqrt((0.1 + 0.1) / 10)
    assert found.value == 0.0
    assert math.isclose(found.high, reach, rel_tol=1e-6) and math.isclose(found.low, -reach, rel_tol=1e-6)


def test_a_difference_stays_within_its_bounds():
    assert paired_difference([True], [False]).low == -1.0
    with pytest.raises(SettingError, match="as many before as after"):
        paired_difference([True], [])


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.706), (2, 4.303), (10, 2.228), (47, 2.012), (1000, 1.962)])
def test_student_t_is_the_tabulated_one(degrees, t):
    assert round(student_t(degrees), 3) == t


def test_perplexity_ratio_by_hand():
    # d = 1, 3 over 2 tokens each: R = 1; residuals -1, 1; variance 2 * 2 / 16
    ratio = perplexity_ratio([2.0, 4.0], [3.0, 7.0], [2, 2])
    assert math.isclose(ratio.value, math.e)
    assert math.isclose(ratio.high, math.exp(1 + 12.7062 * 0.5), rel_tol=1e-4)
    assert math.isclose(ratio.value**2, ratio.low * ratio.high)


def test_perplexity_ratio_over_equal_passages_is_the_paired_t_interval():
    before, after = [1.0, 2.0, 3.0, 4.0], [1.1, 2.4, 3.2, 4.1]
    mean, spread = 0.2, math.sqrt((0.1**2 + 0.2**2 + 0.0 + 0.1**2) / 3)
    ratio = perplexity_ratio(before, after, [1] * 4)
    assert math.isclose(math.log(ratio.value), mean)
    assert math.isclose(math.log(ratio.high), mean + 3.182446 * spread / 2, rel_tol=1e-6)


def test_an_unchanged_model_has_a_ratio_of_exactly_one():
    ratio = perplexity_ratio([3.0, 5.0], [3.0, 5.0], [7, 9])
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "tokens"), [([1.0], [1.0], [3]), ([], [], []), ([1.0, 2.0], [1.0], [1, 1])]
)
def test_a_ratio_needs_two_passages_on_both_sides(before, after, tokens):
    with pytest.raises(SettingError, match="at least two"):
        perplexity_ratio(before, after, tokens)


def test_perplexity_pools_tokens_and_never_overflows():
    assert math.isclose(perplexity([math.log(2) * 3, math.log(2)], [3, 1]), 2.0)
    assert math.isfinite(perplexity([1e9], [1]))


def test_a_mean_difference_has_students_interval():
    found = mean_difference([0.1, 0.2, 0.3, 0.4])  # s² = 1/60, t₃ = 3.1824
    assert (found.value, found.n) == (pytest.approx(0.25), 4)
    assert found.high - found.value == pytest.approx(3.18245 * math.sqrt(1 / 60 / 4), abs=1e-5)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_a_mean_difference_stays_within_bounds_and_knows_what_it_does_not_know():
    assert mean_difference([1.0, -1.0]).low == -1
    assert mean_difference([1.0, -1.0]).high == 1
    one, none = mean_difference([0.3]), mean_difference([])
    assert (one.value, one.low, one.high, one.n) == (0.3, -1, 1, 1)
    assert (none.value, none.low, none.high, none.n) == (0, -1, 1, 0)
