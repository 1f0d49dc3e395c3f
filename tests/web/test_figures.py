"""Numbers as people read them."""

import pytest
import report_sample as sample

from perdure.measuring.report import Difference, Share
from perdure.web import figures
from perdure.web.words import counted


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [(0.5, 10, "50%"), (22 / 24, 24, "92%"), (0.6123, 1800, "61.2%"), (1.0, 12, "100%"), (0.0, 12, "0%")],
)
def test_percent_has_the_digits_that_n_can_bear(value, n, text):
    assert figures.percent(value, n) == text


def test_nothing_short_of_all_reads_as_all():
    assert figures.percent(199 / 200, 200) == "99.5%"
    assert figures.percent(19999 / 20000, 20000) == "99.995%"
    assert figures.percent(1 / 3000, 3000) == "0.03%"


def test_a_share_never_stands_without_interval_and_n():
    assert figures.share(sample.share(22, 24)) == "92% (74–98%; n\u00a0=\u00a024)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.002, "−0.2"), (0.005, "+0.5"), (0.0, "0.0"), (-0.0004, "−0.04"), (1e-9, "0.0"), (float("nan"), "unknown")],
)
def test_points_have_a_true_minus_and_a_plus(value, text):
    assert figures.points(value) == text


def test_a_difference_has_its_interval_and_n():
    given = Difference(value=-0.002, low=-0.009, high=0.005, n=1800)
    assert figures.difference(given) == "−0.2 points (−0.9 to +0.5; n\u00a0=\u00a01,800)"


def test_an_interval_of_one_value_is_written_once():
    assert figures.share_interval(Share(hits=0, n=1, value=0, low=0.2, high=0.2)) == "20%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00421, "0.00421"),
        (18.42, "18.4"),
        (-1.5, "−1.50"),
        (1234.5, "1,234"),
        (4.56e7, "4.56×10⁷"),
        (-2e-5, "−2.00×10⁻⁵"),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
        (float("nan"), "unknown"),
    ],
)
def test_number(value, text):
    assert figures.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1.004, "×1.004"), (41.2, "×41.2"), (float("inf"), "×∞")])
def test_ratio(value, text):
    assert figures.ratio(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_843_200, "1.8 MB"), (3 * 10**15, "3,000.0 TB")]
)
def test_size(count, text):
    assert figures.size(count).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.44, "8.4 s"), (59.99, "1 min 00 s"), (125, "2 min 05 s"), (7320, "2 h 02 min"), (-1, "−1.0 s")],
)
def test_duration(seconds, text):
    assert figures.duration(seconds).replace("\u00a0", " ") == text


def test_counts_are_written_with_their_nouns():
    said = [counted("{count} fact", "{count} facts", n) for n in (0, 1, 1200)]
    assert said == ["0 facts", "1 fact", "1,200 facts"]
