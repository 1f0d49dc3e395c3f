"""KPIs of two versions, side by side: how the periods of one differ from those of the other.

This is no experiment: nobody drew by lot which period had which version, so everything else that changed between
the periods is in the difference as well.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from perdure.measuring.shares import Data
from perdure.measuring.statistics import student_t

NO_EXPERIMENT = (
    "Before and after, no experiment: what else changed between the periods is in these differences as well. "
    "An interval needs two periods of each version and takes them as independent."
)


@dataclass(frozen=True)
class Figure:
    """One figure of one KPI, in force.

    Attributes:
        name: Of the KPI.
        unit: Of its values.
        better: Which direction is good.
        version: The version that served, such as v3.
        value: The figure of one period.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    version: str
    value: float


class Contrast(Data):
    """Two samples of periods: the difference of their means, after − before.

    Attributes:
        before: The mean over the periods before.
        after: The mean over those after.
        difference: after − before.
        low: Lower end of its 95% interval; None with fewer than two periods on either side.
        high: Upper end.
        periods: How many periods there are before, and after.
    """

    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    periods: tuple[int, int]


class KpiComparison(Data):
    """One KPI under two versions.

    Attributes:
        name: Of the KPI.
        unit: Of its values.
        better: Which direction is good.
        contrast: The figures.
        says: "better", "worse" or "unclear" by the interval; "no interval" without one.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    contrast: Contrast
    says: Literal["better", "worse", "unclear", "no interval"]


def contrast(before: Sequence[float], after: Sequence[float]) -> Contrast:
    """The difference of two means with Welch's interval, for samples of different spread.

    Welch, "The generalization of 'Student's' problem when several different population variances are involved",
    Biometrika 34 (1947): (m₂ − m₁) ± t_ν √(s₁²/n₁ + s₂²/n₂) with Satterthwaite's
    ν = (s₁²/n₁ + s₂²/n₂)² / ((s₁²/n₁)²/(n₁−1) + (s₂²/n₂)²/(n₂−1)), here rounded down, which widens the interval.

    Args:
        before: A value a period; one or more.
        after: The same after.
    """
    first, second = _mean(before), _mean(after)
    reach = _reach(before, after)
    return Contrast(
        before=first,
        after=second,
        difference=second - first,
        low=None if reach is None else second - first - reach,
        high=None if reach is None else second - first + reach,
        periods=(len(before), len(after)),
    )


def _reach(before: Sequence[float], after: Sequence[float]) -> float | None:
    if min(len(before), len(after)) < 2:
        return None
    parts = [(_variance(values) / len(values), len(values) - 1) for values in (before, after)]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0
    degrees = 1 / sum((part / total) ** 2 / free for part, free in parts)
    return student_t(max(1, math.floor(degrees + 1e-9))) * math.sqrt(total)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def compare_kpis(figures: Iterable[Figure], before: str, after: str) -> list[KpiComparison]:
    """Every KPI that was entered for both versions, by name.

    Args:
        figures: Those in force.
        before: The earlier version's name.
        after: The later one's.
    """
    found: dict[str, dict[str, list[Figure]]] = {}
    for figure in figures:
        if figure.version in (before, after):
            found.setdefault(figure.name, {}).setdefault(figure.version, []).append(figure)
    pairs = [(sides[before], sides[after]) for _, sides in sorted(found.items()) if len(sides) == 2]
    return [_compared(first, second) for first, second in pairs]


def _compared(before: Sequence[Figure], after: Sequence[Figure]) -> KpiComparison:
    kpi = before[0]
    found = contrast([figure.value for figure in before], [figure.value for figure in after])
    return KpiComparison(name=kpi.name, unit=kpi.unit, better=kpi.better, contrast=found, says=_says(found, kpi.better))


def _says(found: Contrast, better: str) -> Literal["better", "worse", "unclear", "no interval"]:
    if found.low is None or found.high is None:
        return "no interval"
    if found.low <= 0 <= found.high:
        return "unclear"
    return "better" if (found.difference > 0) == (better == "higher") else "worse"
