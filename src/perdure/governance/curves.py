"""Curves over versions, with the limits of the policy: what slow drift looks like."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.governance.policy import Policy
from perdure.measuring.statistics import wilson

Stored = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure with its 95% interval; an exact one has none of any width."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One measure over versions.

    Attributes:
        name: A stable key.
        label: What it is, in words.
        unit: Of its values; empty for shares.
        limit: What the policy allows; None where it says nothing.
        above: Whether values over the limit are the bad ones.
        points: (version, figure), the oldest version first; versions without the figure are left out.
    """

    name: str
    label: str
    unit: str
    limit: float | None
    above: bool
    points: tuple[tuple[str, Figure], ...]

    @property
    def beyond(self) -> tuple[str, ...]:
        """The versions on the wrong side of the limit."""
        if self.limit is None:
            return ()
        sign = 1 if self.above else -1
        return tuple(version for version, found in self.points if sign * (found.value - self.limit) > 0)


def curves(reports: Sequence[tuple[str, Stored]], policy: Policy) -> list[Curve]:
    """Retention, perplexity, κ and norm against the base, edits since the base, old edits: one curve each.

    Args:
        reports: (version's name, its latest report as it is stored), the oldest version first.
        policy: Whose limits are drawn.
    """
    found = [(name, figures_of(report)) for name, report in reports]
    made = [
        Curve(name, label, unit, limit(policy), above, _points(found, name))
        for name, label, unit, above, limit in _CURVES
    ]
    return [curve for curve in made if curve.points]


def figures_of(report: Stored) -> dict[str, Figure]:
    """The figures of a stored report by the names of the curves; those that are unknown or infinite are left out."""
    named = {name: figure for name, figure in _figures(report) if figure is not None}
    return {
        name: figure
        for name, figure in named.items()
        if all(map(math.isfinite, (figure.value, figure.low, figure.high)))
    }


_CURVES: tuple[tuple[str, str, str, bool, Callable[[Policy], float | None]], ...] = (
    ("retention", "what it could do, against the base", "", False, lambda policy: -policy.retention.overall_lost),
    ("perplexity", "perplexity over the base's", "×", True, lambda policy: policy.language.perplexity_ratio),
    ("condition", "condition number over the base's", "×", True, lambda policy: policy.weights.condition_ratio),
    ("norm", "norm of all changes over the matrix's", "", True, lambda policy: policy.weights.norm_ratio),
    ("edits", "facts taught since the base", "", True, lambda policy: policy.budget.facts if policy.budget else None),
    ("old_edits", "facts of earlier versions still answered", "", False, lambda policy: policy.edits.learnt),
)


def _points(found: Sequence[tuple[str, Mapping[str, Figure]]], name: str) -> tuple[tuple[str, Figure], ...]:
    return tuple((version, figures[name]) for version, figures in found if name in figures)


def _figures(report: Stored) -> Iterator[tuple[str, Figure | None]]:
    yield "retention", _retention(report)
    yield "perplexity", _perplexity(report)
    matrices = report.get("matrices") or ()
    known = [row for row in matrices if _usable(row["condition_before"]) and _usable(row["condition_after"])]
    yield "condition", _exact([row["condition_after"] / row["condition_before"] for row in known])
    yield "norm", _exact([row["relative_norm"] for row in matrices])
    yield "edits", _exact([report["spent"]["facts"]] if report.get("spent") else [])
    yield "old_edits", _old_edits(report)


def _retention(report: Stored) -> Figure | None:
    if not report.get("retention"):
        return None
    overall = report["retention"]["overall"]
    change = overall.get("against_base") or overall["difference"]
    return Figure(change["value"], change["low"], change["high"])


def _perplexity(report: Stored) -> Figure | None:
    """The ratio to the base; its interval is the one to the parent, moved there."""
    language = report.get("language")
    if not language:
        return None
    ratio = language.get("ratio_to_base") or language["ratio"]
    moved = ratio / language["ratio"] if language["ratio"] else 1.0
    return Figure(ratio, moved * language["ratio_low"], moved * language["ratio_high"])


def _old_edits(report: Stored) -> Figure | None:
    """Facts of earlier versions, pooled: of the cohorts that were asked last, all but the version's own."""
    cohorts = (report.get("course") or {}).get("cohorts") or ()
    older = [row["kept"] for row in cohorts if row.get("before") is not None and row["label"] != report["version"]]
    n = sum(kept["n"] for kept in older)
    if not n:
        return None
    share = wilson(sum(kept["hits"] for kept in older), n)
    return Figure(share.value, share.low, share.high)


def _exact(values: Sequence[float]) -> Figure | None:
    return Figure(max(values), max(values), max(values)) if values else None


def _usable(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
