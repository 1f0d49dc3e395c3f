import pytest

from perdure.errors import SettingError
from perdure.measuring.forgetting import average, backward_transfer, figures_of, forgetting, new

R = [[80, None, None], [70, 90, None], [60, 85, 75]]


def hits(count, n=100):
    return [1.0] * count + [0.0] * (n - count)


ITEMS = [[None if cell is None else hits(cell) for cell in row] for row in R]


def test_the_known_answers():
    assert average(R) == pytest.approx(73.3333, abs=1e-4)
    assert new(R) == pytest.approx(81.6667, abs=1e-4)
    assert forgetting(R) == pytest.approx(12.5)
    assert backward_transfer(R) == pytest.approx(-12.5)


def test_the_largest_score_counts_and_not_the_first():
    risen = [[80, None, None], [90, 90, None], [60, 85, 75]]
    assert forgetting(risen) == pytest.approx((30 + 5) / 2)
    assert backward_transfer(risen) == pytest.approx((-20 - 5) / 2)


def test_what_got_better_is_not_forgotten_and_is_told_by_backward_transfer():
    better = [[70, None], [80, 90]]
    assert forgetting(better) == 0
    assert backward_transfer(better) == 10


def test_scores_before_a_task_was_learnt_change_nothing():
    known = [[80, 99, 99], [70, 90, 99], [60, 85, 75]]
    assert [f(known) for f in (average, new, forgetting, backward_transfer)] == [
        f(R) for f in (average, new, forgetting, backward_transfer)
    ]


def test_one_task_leaves_nothing_to_forget():
    assert (average([[80]]), new([[80]])) == (80, 80)
    assert forgetting([[80]]) is backward_transfer([[80]]) is None
    assert figures_of([[hits(80)]]).forgetting is None


def test_rows_may_learn_nothing():
    """An edit before the first task, and one after the last: the last task is an earlier one then."""
    rows = [[10, 20], [80, 20], [70, 90], [60, 85]]
    assert new(rows, [1, 2]) == 85
    assert average(rows, [1, 2]) == 72.5
    assert forgetting(rows, [1, 2]) == (20 + 5) / 2


@pytest.mark.parametrize("wrong", [[], [[]], [[80, None], [None, 90]], [[80, None]], [[80], [70, 90]]], ids=str)
def test_a_hole_in_the_matrix_is_refused(wrong):
    with pytest.raises(SettingError, match="R"):
        average(wrong)


def test_rows_that_are_not_there_are_refused():
    with pytest.raises(SettingError, match="rows"):
        new(R, [0, 1, 3])


def test_the_intervals_hold_the_figures_and_are_the_same_every_time():
    found = figures_of(ITEMS)
    for figure, value in (
        (found.average, 0.73333),
        (found.new, 0.816667),
        (found.forgetting, 0.125),
        (found.backward_transfer, -0.125),
    ):
        assert figure.value == pytest.approx(value, abs=1e-4)
        assert figure.low < figure.value < figure.high
    assert (found.average.n, found.forgetting.n) == (300, 200)
    assert found == figures_of(ITEMS)
    assert found != figures_of(ITEMS, seed=1)


def test_the_interval_of_an_average_is_that_of_the_normal_distribution():
    """Independent tasks of shares p on n items: variance Σ p(1−p)/n / T²."""
    found = figures_of(ITEMS, draws=20_000).average
    deviation = sum(p * (1 - p) / 100 for p in (0.6, 0.85, 0.75)) ** 0.5 / 3
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.07)  # means move in steps of 1/300


def test_the_bootstrap_is_paired():
    """All versions fail on the same hard questions: shares are unsure, and the difference is none at all."""
    found = figures_of([[hits(50), None], [hits(50), hits(90)]])
    assert found.average.high - found.average.low > 0.1
    assert (found.backward_transfer.low, found.backward_transfer.high) == (0, 0)
    other = figures_of([[hits(50), None], [hits(50)[::-1], hits(90)]])
    assert other.backward_transfer.value == 0
    assert other.backward_transfer.high > 0.15


def test_unequal_questions_are_refused():
    with pytest.raises(SettingError, match="task 0 must have the same questions"):
        figures_of([[hits(5, 10), None], [hits(5, 11), hits(5)]])
