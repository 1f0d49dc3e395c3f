"""What reports say of each version, as curves: what was kept, perplexity, the condition of its matrices."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.governance import Policy
from perdure.web.charts import ACCENT, INK, WORSE, Spec, look
from perdure.web.server.words import _
from perdure.workspace import Version, Workspace

POINTS = "monitor"
_NEWEST = 200


@dataclass(frozen=True)
class Measure:
    """One curve.

    Attributes:
        name: Its key.
        label: What it is about.
        unit: Of its values.
        limit: What the policy allows; None where it says nothing.
        above: Whether values over the limit are the bad ones.
        rows: version, value, low, high; the oldest version first.
    """

    name: str
    label: str
    unit: str
    limit: float | None
    above: bool
    rows: Sequence[Mapping[str, Any]]

    @property
    def shows_limit(self) -> bool:
        """Whether the limit is near enough to be drawn without pressing the curve flat."""
        if self.limit is None:
            return False
        ends = [float(row[end]) for row in self.rows for end in ("low", "high")]
        low, high = min(ends), max(ends)
        room = 4 * max(high - low, 0.05 * max(abs(low), abs(high)))
        return low - room <= self.limit <= high + room

    @property
    def beyond(self) -> list[str]:
        """The versions on the wrong side of the limit."""
        if self.limit is None:
            return []
        wrong = [row for row in self.rows if (row["value"] > self.limit) == self.above and row["value"] != self.limit]
        return [str(row["version"]) for row in wrong]


@dataclass
class Watch:
    """The figures of all reports, read once each and then kept."""

    shop: Workspace
    _latest: dict[str, str] = field(default_factory=dict)
    _points: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def measures(self, policy: Policy) -> list[Measure]:
        """The curves over the newest versions that were measured."""
        with self._lock:
            self._catch_up()
            versions = [version for version in self.shop.archive.versions() if version.id in self._latest][-_NEWEST:]
            points = [{"version": version.name, **self._point(version.id)} for version in versions]
        kept, weights = policy.retention, policy.weights
        found = [
            (
                "kept",
                _("Change of what it could do, against the original"),
                _("points"),
                -100 * kept.overall_lost,
                False,
            ),
            ("perplexity", _("Perplexity, against the original"), "×", policy.language.perplexity_ratio, True),
            ("condition", _("Condition number, against the original"), "×", weights.condition_ratio, True),
        ]
        made = [Measure(*head, tuple(_rows(points, head[0]))) for head in found]
        return [measure for measure in made if measure.rows]

    def figures(self, version: Version) -> Mapping[str, Sequence[float]]:
        """What the newest report says of a version: value, low, high by the curves' names; else nothing."""
        with self._lock:
            self._catch_up()
            return dict(self._point(version.id)) if version.id in self._latest else {}

    def _catch_up(self) -> None:
        """Learn from the ledger which reports are new."""
        last = self.shop.archive.log(1)[-1].sequence
        # The word leaves most rows to the database; some that hold it are of other actions.
        for entry in self.shop.archive.log(after=self._seen, before=last + 1, words="report"):
            if entry.action == "report":
                self._latest[str(entry.details["version"])] = str(entry.details["digest"])
        self._seen = last

    def _point(self, version: str) -> dict[str, Any]:
        digest = self._latest[version]
        if digest not in self._points:
            known = self.shop.archive.recall(POINTS, digest)
            if known is None:
                known = figures_of(self.shop.archive.stored_report(self.shop.version(version), digest))
                self.shop.archive.remember(POINTS, digest, known)
            self._points[digest] = known
        return self._points[digest]


def figures_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a stored report that the curves show: value, low, high, where they are known and finite."""
    found: dict[str, Any] = {}
    retention, language = report.get("retention"), report.get("language")
    if retention:
        overall = retention["overall"]
        change = overall.get("against_base") or overall["difference"]
        found["kept"] = [100 * change[name] for name in ("value", "low", "high")]
    if language:
        ratio = language.get("ratio_to_base") or language["ratio"]
        spread = ratio / language["ratio"] if language["ratio"] else 1.0
        found["perplexity"] = [ratio, spread * language["ratio_low"], spread * language["ratio_high"]]
    ratios = [row["condition_after"] / row["condition_before"] for row in _matrices(report) if row["condition_before"]]
    if ratios:
        found["condition"] = [max(ratios)] * 3
    return {name: value for name, value in found.items() if all(map(_finite, value))}


def _matrices(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = report.get("matrices") or ()
    return [row for row in rows if _finite(row["condition_before"]) and _finite(row["condition_after"])]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _rows(points: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {"version": point["version"], **dict(zip(("value", "low", "high"), point[name], strict=True))}
        for point in points
        if name in point
    ]


def curve(measure: Measure) -> Spec:
    """A curve over versions with its intervals, and the policy's limit as a line."""
    order = [row["version"] for row in measure.rows]
    x = {
        "field": "version",
        "type": "ordinal",
        "sort": order,
        "title": None,
        "axis": {"labelAngle": 0, "labelOverlap": True},
    }
    y = {"type": "quantitative", "title": measure.unit, "scale": {"zero": False, "nice": True}}
    says = {"field": "said", "type": "nominal"}
    rows = [{**row, "said": f"{row['version']}: {row['value']:.3g} {measure.unit}"} for row in measure.rows]
    line = {
        "mark": {"type": "line", "color": ACCENT, "strokeWidth": 1.5},
        "encoding": {"x": x, "y": {**y, "field": "value"}},
    }
    spread = {
        "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 2.5},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    dots = {
        "mark": {"type": "point", "filled": True, "size": 80, "color": ACCENT, "opacity": 1},
        "encoding": {"x": x, "y": {**y, "field": "value"}, "tooltip": says},
    }
    layers: list[Spec] = [line, spread, dots]
    if measure.limit is not None and measure.shows_limit:
        layers.append(_limit(measure.limit, y))
    return {
        "description": measure.label,
        "width": "container",
        "height": 220,
        "data": {"values": rows},
        "layer": layers,
        "config": look(),
    }


def _limit(value: float, y: Spec) -> Spec:
    rule = {"mark": {"type": "rule", "color": WORSE, "strokeDash": [6, 4], "strokeWidth": 1.5}}
    text = {
        "mark": {"type": "text", "align": "left", "x": 4, "dy": -7, "fontSize": 12, "color": INK, "text": _("limit")}
    }
    where = {"data": {"values": [{"limit": value}]}, "encoding": {"y": {**y, "field": "limit"}}}
    return {**where, "layer": [rule, text]}
