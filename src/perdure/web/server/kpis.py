"""KPIs as a page shows them: each with the periods of every version, beside what reports say of these versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from babel.numbers import format_decimal

from perdure.governance.curves import Figure, figures_of
from perdure.measuring.kpis import KpiComparison
from perdure.web import figures as numbers
from perdure.web.server.seeing import Sight
from perdure.web.server.watching import Watch
from perdure.web.server.words import _, language
from perdure.workspace import Version
from perdure.workspace.observations import Kpi

SERVING = "production"
_NEWEST = 400


@dataclass(frozen=True)
class Promotion:
    """A day on which other answers began.

    Attributes:
        time: When, UTC, ISO 8601.
        before: The name of the version that served until then.
        after: That of the one that served from then on.
    """

    time: str
    before: str
    after: str


@dataclass(frozen=True)
class Beside:
    """One version under one KPI.

    Attributes:
        version: Its name.
        mean: Of its periods.
        periods: How many there are.
        model: What the newest report says of it, in words, by the names of the monitor's curves.
    """

    version: str
    mean: float
    periods: int
    model: Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """One KPI.

    Attributes:
        name: What people call it.
        unit: Of its values.
        better: Which direction is good: "higher" or "lower".
        rows: The figures in force, by period.
        beside: Each version that has some, the oldest version first.
    """

    name: str
    unit: str
    better: str
    rows: Sequence[Kpi]
    beside: Sequence[Beside]


@dataclass(frozen=True)
class Pair:
    """Two versions compared.

    Attributes:
        before: The name of the earlier one.
        after: That of the later one.
        kpis: Every KPI that was entered for both.
        model: Rows of what reports say: label, before, after; in words.
    """

    before: str
    after: str
    kpis: Sequence[KpiComparison]
    model: Sequence[tuple[str, ...]]


def series(sight: Sight, watch: Watch) -> list[Series]:
    """Every KPI with its newest figures, the one that was entered last first."""
    found: dict[str, list[Kpi]] = {}
    for row in sight.shop.kpis():
        found.setdefault(row.name, []).append(row)
    newest = sorted(found.items(), key=lambda pair: -pair[1][-1].sequence)
    return [_series(sight, watch, name, rows[-_NEWEST:]) for name, rows in newest]


def _series(sight: Sight, watch: Watch, name: str, rows: Sequence[Kpi]) -> Series:
    ordered = sorted(rows, key=lambda row: (row.period_start, row.sequence))
    values: dict[str, list[float]] = {}
    for row in ordered:
        values.setdefault(row.version, []).append(row.value)
    beside = [
        Beside(version.name, sum(own) / len(own), len(own), _in_words(watch.figures(version)))
        for version in sight.versions
        if (own := values.get(version.id))
    ]
    return Series(name, rows[-1].unit, rows[-1].better, ordered, beside)


def promotions(sight: Sight, alias: str = SERVING) -> list[Promotion]:
    """Every time that an alias began to hold another version, oldest first."""
    served = sight.shop.history(alias) if alias in sight.aliases else []
    steps = [(now.since, sight.name(old.version), sight.name(now.version)) for old, now in pairwise(served)]
    return [Promotion(*step) for step in steps if step[1] != step[2]]


def default_pair(moves: Sequence[Promotion], found: Sequence[Series]) -> tuple[str, str] | None:
    """The newest promotion around which a KPI was entered on both sides; else the two newest versions that have one."""
    sides = [[row.version for row in one.beside] for one in found]
    for move in reversed(moves):
        if any(move.before in side and move.after in side for side in sides):
            return move.before, move.after
    return next(((side[-2], side[-1]) for side in sides if len(side) > 1), None)


def compare(sight: Sight, before: Version, after: Version) -> Pair:
    """KPIs of two versions, and beside them what reports say of both."""
    sides = [figures_of(sight.shop.archive.report(version) or {}) for version in (before, after)]
    rows = [
        (label, *(_said(name, side) for side in sides))
        for name, label in _labels().items()
        if any(name in side for side in sides)
    ]
    return Pair(before.name, after.name, sight.shop.compare_kpis(before, after), rows)


def _labels() -> dict[str, str]:
    return {
        "retention": _("Change of what it could do, against the original"),
        "perplexity": _("Perplexity, against the original"),
        "condition": _("Condition number, against the original"),
        "norm": _("Norm of all changes, over that of the matrix"),
        "edits": _("Facts taught since the original"),
        "old_edits": _("Facts of earlier versions still answered"),
    }


def _said(name: str, figures: Mapping[str, Figure]) -> str:
    """A figure in words; empty where it is not known."""
    if name not in figures:
        return ""
    value = figures[name].value
    if name == "retention":
        return _("{value} points").format(value=numbers.points(value))
    if name == "old_edits":
        return f"{100 * value:.0f}%"
    return numbers.ratio(value) if name in ("perplexity", "condition") else numbers.number(value)


def _in_words(figures: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The curves' figures in words; empty where one is not known."""
    kept = numbers.points(figures["kept"][0] / 100) if "kept" in figures else ""
    ratios = {name: numbers.ratio(figures[name][0]) if name in figures else "" for name in ("perplexity", "condition")}
    return {"kept": kept, **ratios}


def entered(value: float) -> str:
    """A figure as somebody entered it, its thousands grouped as in the language of this request."""
    if value and not 1e-6 <= abs(value) < 1e15:
        return numbers.number(value)
    return format_decimal(value, "#,##0.##########", locale=language()).replace("-", numbers.MINUS)


def mean(value: float) -> str:
    """A mean of figures, with four digits that count."""
    return entered(float(f"{value:.4g}"))


def signed(value: float) -> str:
    """A difference of means, with its sign and three digits that count."""
    rounded = float(f"{value:.3g}")
    return f"+{entered(rounded)}" if rounded > 0 else entered(rounded)


def tenths(share: float) -> str:
    """A share in percent with as many decimals as it has, such as "2.5%"."""
    return f"{entered(round(100 * share, 4))}%"


def typed_of(row: Kpi, version: str) -> dict[str, Any]:
    """A figure as the form shows it that will correct it."""
    names = ("name", "unit", "better", "period_start", "period_end", "value")
    return {
        **{name: getattr(row, name) for name in names},
        "n": row.n or "",
        "version": version,
        "corrects": row.sequence,
    }
