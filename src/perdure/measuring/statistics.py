"""Shares, paired differences and perplexity ratios, each with a 95% interval. Pure functions of numbers.

The items of a measure are taken to be independent of each other; where several questions ask for one fact
they are not quite, and the true interval is a little wider.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from perdure.errors import SettingError
from perdure.intervals import NORMAL, paired_interval
from perdure.measuring.shares import Difference, Estimate, Share

_LEVEL = 0.95
_LARGEST_LOG = 700.0  # exp of more does not fit a float64


@dataclass(frozen=True)
class Ratio:
    """A ratio of perplexities, after / before, with its 95% interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Share:
    """The share hits / n with Wilson's score interval.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); it keeps
    its level near 0 and 1, where most shares of a good model lie (Newcombe, Statistics in Medicine 17, 1998).
    Of no items nothing is known: 0, from 0 to 1.

    Raises:
        SettingError: Not 0 ≤ hits ≤ n.
    """
    if not 0 <= hits <= n:
        raise SettingError(f"hits must lie between 0 and n; given {hits} of {n}")
    if n == 0:
        return Share(hits=0, n=0, value=0.0, low=0.0, high=1.0)
    share, weight = hits / n, NORMAL**2 / n
    centre = (share + weight / 2) / (1 + weight)
    reach = NORMAL * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low = 0.0 if hits == 0 else centre - reach
    high = 1.0 if hits == n else centre + reach
    return Share(hits=hits, n=n, value=share, low=low, high=high)


def share_of(hits: Sequence[bool]) -> Share:
    """The share of items that are true, with its interval."""
    return wilson(sum(hits), len(hits))


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Difference:
    """The share after minus the share before on the same items, with the adjusted Wald interval.

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 37 (2012): one item is added to each of the
    two discordant cells, so that the interval has a width even when no item changed. The value is the plain
    difference, as observed. Of no items nothing is known: 0, from −1 to 1.

    Raises:
        SettingError: The two sequences differ in length.
    """
    if len(before) != len(after):
        raise SettingError(f"paired items must be as many before as after; given {len(before)} and {len(after)}")
    n = len(before)
    if n == 0:
        return Difference(value=0.0, low=-1.0, high=1.0, n=0)
    pairs = list(zip(before, after, strict=True))
    gained = sum(new and not old for old, new in pairs)
    lost = sum(old and not new for old, new in pairs)
    low, high = paired_interval(gained, lost, n)
    return Difference(value=(gained - lost) / n, low=low, high=high, n=n)


def mean_difference(values: Sequence[float]) -> Difference:
    """The mean of paired differences of probabilities, one an item, with Student's interval over the items.

    Within −1 and 1, where such a difference lies; of fewer than two items the spread is not known, and the
    interval is all of that.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    if n < 2:
        return Difference(value=mean, low=-1.0, high=1.0, n=n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    reach = student_t(n - 1) * math.sqrt(variance / n)
    return Difference(value=mean, low=max(-1.0, mean - reach), high=min(1.0, mean + reach), n=n)


def mean_of(values: Sequence[float], *, most: float = 1.0) -> Estimate:
    """The mean of values between 0 and `most`, one an item, with Student's interval over the items.

    Of fewer than two items the spread is not known, and the interval is all of that.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    if n < 2:
        return Estimate(value=mean, low=0.0, high=most, n=n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    reach = student_t(n - 1) * math.sqrt(variance / n)
    return Estimate(value=mean, low=max(0.0, mean - reach), high=min(most, mean + reach), n=n)


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """exp(total negative log-likelihood / total tokens), over all passages together."""
    return _exp(sum(nll) / max(1, sum(tokens)))


def perplexity_ratio(nll_before: Sequence[float], nll_after: Sequence[float], tokens: Sequence[int]) -> Ratio:
    """The perplexity after over that before, with an interval over passages.

    The logarithm of the ratio is Σdᵢ / Σtᵢ with dᵢ the difference of passage i's negative log-likelihoods and
    tᵢ its tokens: a ratio estimator, whose variance by linearisation is n / (n−1) · Σ(dᵢ − R tᵢ)² / (Σtᵢ)²
    (Cochran, Sampling Techniques, 3rd edition, 1977, sections 2.11 and 6.4). The interval takes Student's t
    with n − 1 degrees of freedom and is turned back by exp. Pairing takes out how hard each passage is.

    Args:
        nll_before: Negative log-likelihood of each passage before, in nats.
        nll_after: The same after.
        tokens: Scored tokens of each passage.

    Raises:
        SettingError: Fewer than two passages, no tokens, or lengths that differ.
    """
    n, total = len(tokens), sum(tokens)
    if not len(nll_before) == len(nll_after) == n or n < 2 or total <= 0:
        raise SettingError(
            "a perplexity ratio needs the same passages before and after, at least two, with tokens; "
            f"given {len(nll_before)} and {len(nll_after)} passages and {total} tokens"
        )
    differences = [new - old for old, new in zip(nll_before, nll_after, strict=True)]
    log_ratio = sum(differences) / total
    squares = sum((d - log_ratio * t) ** 2 for d, t in zip(differences, tokens, strict=True))
    reach = student_t(n - 1) * math.sqrt(n / (n - 1) * squares) / total
    return Ratio(_exp(log_ratio), _exp(log_ratio - reach), _exp(log_ratio + reach))


@lru_cache
def student_t(degrees: int) -> float:
    """The two-sided 95% point of Student's t, by bisection of its distribution."""
    low, high = 0.0, 13.0  # 12.706 at one degree is the largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < _LEVEL else (low, middle)
    return (low + high) / 2


def _within(t: float, degrees: int) -> float:
    """P(|T| < t) for a whole number of degrees (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for index in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (index + 1) / (index + 2)
    series = math.sin(angle) * total
    return (angle + series) * 2 / math.pi if odd else series


def _exp(value: float) -> float:
    return math.exp(min(value, _LARGEST_LOG))
