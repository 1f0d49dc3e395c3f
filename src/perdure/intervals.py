"""Intervals that rooms below the measures need as well."""

import math
from statistics import NormalDist

NORMAL = NormalDist().inv_cdf(0.975)
"""The two-sided 95% point of the normal distribution."""


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95% interval of the difference of two shares on the same n items: the adjusted Wald interval.

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 37 (2012): one item is added to each of the
    two discordant cells, so that the interval has a width even when no item changed.

    Args:
        gained: Items that are right only the second time.
        lost: Items that are right only the first time.
        n: All items.
    """
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    reach = NORMAL * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - reach), min(1.0, up - down + reach)
