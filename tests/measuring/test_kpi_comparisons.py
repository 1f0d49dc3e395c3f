"""Before and after of KPIs, against Welch's interval worked by hand."""

import pytest

from perdure.measuring.kpis import Figure, compare_kpis, contrast


def figures(version, *values, name="rework", better="lower"):
    return [Figure(name, "h", better, version, value) for value in values]


def test_welch_by_hand():
    # means 2 and 7, variances 1 and 4: √(1/3 + 4/3) = 1.29099; ν = (5/3)² / ((1/9 + 16/9) / 2) = 2.941 → 2, t = 4.30265
    found = contrast([1.0, 2.0, 3.0], [5.0, 7.0, 9.0])
    assert (found.before, found.after, found.difference, found.periods) == (2.0, 7.0, 5.0, (3, 3))
    assert found.low == pytest.approx(5 - 4.30265 * 1.290994, abs=1e-4)
    assert found.high == pytest.approx(5 + 4.30265 * 1.290994, abs=1e-4)


def test_equal_spreads_have_all_degrees():
    found = contrast([1.0, 3.0], [2.0, 4.0])  # ν = 2, √(2/2 + 2/2) = √2
    assert found.high - found.difference == pytest.approx(4.30265 * 2**0.5, abs=1e-4)


def test_one_period_has_no_interval():
    found = contrast([1.0, 2.0], [5.0])
    assert (found.difference, found.low, found.high) == (3.5, None, None)


def test_constant_values_have_an_interval_of_no_width():
    found = contrast([1.0, 1.0], [2.0, 2.0])
    assert (found.low, found.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("after", "better", "says"),
    [((1.0, 1.1), "lower", "better"), ((1.0, 1.1), "higher", "worse"), ((9.0, 11.5), "lower", "unclear"),
     ((1.0,), "lower", "no interval")],
)  # fmt: skip
def test_what_the_interval_says(after, better, says):
    rows = figures("v0", 10.0, 10.2, better=better) + figures("v1", *after, better=better)
    (found,) = compare_kpis([*rows, *figures("v0", 1.0, name="calls"), *figures("v2", 3.0)], "v0", "v1")
    assert (found.name, found.says) == ("rework", says)
