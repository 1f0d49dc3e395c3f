"""Intervals over several sets of items, and over many classes looked at together. Pure functions of numbers."""

import math
from collections.abc import Sequence
from statistics import NormalDist

from perdure.errors import SettingError
from perdure.intervals import NORMAL
from perdure.measuring.shares import Difference
from perdure.measuring.statistics import paired_difference

_LEVEL = 0.05
Pair = tuple[Sequence[bool], Sequence[bool]]
"""Whether each item of a set is right before, and after."""


def mean_difference_of_sets(sets: Sequence[Pair]) -> Difference:
    """The plain mean of the sets' paired differences, after − before, with its 95% interval; n counts all items.

    Sets are taken as they are and items as drawn: the interval says how sure the mean over *these* sets is, not what
    other sets would give. Each set brings the variance of its adjusted Wald interval (Bonett and Price 2012, see
    `paired_difference`), and the variance of a mean of k independent differences is their sum over k².

    Raises:
        SettingError: There is no set, or a set without items.
    """
    if not sets or not all(len(before) for before, _ in sets):
        raise SettingError("a mean over sets needs at least one set, and items in each")
    moved = [_moments(before, after) for before, after in sets]
    count = len(sets)
    value = math.fsum(paired_difference(before, after).value for before, after in sets) / count
    centre = math.fsum(mean for mean, _ in moved) / count
    reach = NORMAL * math.sqrt(math.fsum(variance for _, variance in moved)) / count
    low, high = max(-1.0, centre - reach), min(1.0, centre + reach)
    return Difference(value=value, low=low, high=high, n=sum(len(before) for before, _ in sets))


def joint_difference(before: Sequence[bool], after: Sequence[bool], looked_at: int) -> Difference:
    """The paired difference with an interval that holds for all of `looked_at` such differences at once.

    The adjusted Wald interval at the level 1 − 0.05 / looked_at (Bonferroni): with 95% confidence none of them leaves
    its interval, however many were looked at and whichever is pointed out afterwards.
    """
    plain = paired_difference(before, after)
    if plain.n == 0:
        return plain
    centre, variance = _moments(before, after)
    reach = NormalDist().inv_cdf(1 - _LEVEL / (2 * max(1, looked_at))) * math.sqrt(variance)
    return Difference(value=plain.value, low=max(-1.0, centre - reach), high=min(1.0, centre + reach), n=plain.n)


def sign_test(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The probability of so uneven gains and losses if both were equally likely: two-sided and exact.

    McNemar's test in its exact form: of the items that changed, each is a gain or a loss like the toss of a coin.
    """
    gained = sum(new and not old for old, new in zip(before, after, strict=True))
    lost = sum(old and not new for old, new in zip(before, after, strict=True))
    changed, few = gained + lost, min(gained, lost)
    tail = sum(math.comb(changed, count) for count in range(few + 1))
    return float(min(1.0, 2 * tail / 2**changed))


def holm(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of a family of tests, corrected: those up to 0.05 hold together with 95% confidence.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(probabilities)), key=lambda place: (probabilities[place], place))
    found, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(probabilities) - rank) * probabilities[place]))
        found[place] = largest
    return tuple(found)


def _moments(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float]:
    """Centre and variance of the adjusted Wald interval."""
    n = len(before)
    gained = sum(new and not old for old, new in zip(before, after, strict=True))
    lost = sum(old and not new for old, new in zip(before, after, strict=True))
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    return up - down, (up + down - (up - down) ** 2) / (n + 2)
