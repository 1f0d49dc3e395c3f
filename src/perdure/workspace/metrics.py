"""Prometheus metrics of a workspace, from what it keeps: no model is loaded, and every label is bounded."""

import shutil
import threading
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from perdure.errors import PerdureError
from perdure.governance.curves import figures_of
from perdure.governance.drift import COHORT
from perdure.workspace.metric_sources import History, Step, layer_of, step_of, verdicts_of
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "perdure_"
_MOST = 100  # values of one label; what comes after counts as "other"
_WAITS = (60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0)
_ROLLBACKS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_RATIOS = {
    "edit_success_ratio": ("edits.prompt.generation_contains", "facts said when asked as written"),
    "edit_generalisation_ratio": ("edits.paraphrase.generation_contains", "facts said when asked in other words"),
    "edit_locality_ratio": ("edits.neighbour.unchanged", "questions nearby that are answered as before"),
}


class Metrics(Collector):
    """The metrics of one workspace; what never changes is read once. Safe for several threads."""

    def __init__(self, shop: "Workspace") -> None:
        self._shop = shop
        self._history = History()
        self._steps: dict[str, Step] = {}
        self._verdicts: dict[str, Counter[tuple[str, str]]] = {}
        self._lock = threading.Lock()

    def text(self) -> str:
        """All metrics as Prometheus reads them (`CONTENT_TYPE`)."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that no workspace is read when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family of metrics."""
        with self._lock:
            self._history.catch_up(self._shop)
            versions = {version.id: version for version in self._shop.archive.versions()}
            held = dict(list(self._shop.archive.aliases().items())[:_MOST])
            yield from self._about_updates(versions)
            yield from self._about_aliases(held)
            yield from self._about_decisions(versions)
            yield from self._about_storage()

    # Updates

    def _about_updates(self, versions: Mapping[str, Version]) -> Iterator[Metric]:
        for version in versions.values():
            if version.parent is not None and version.id not in self._steps:
                self._steps[version.id] = step_of(self._shop, version, versions[version.parent])
        applied: Counter[str] = Counter()
        for step in self._steps.values():
            applied[step.method] += step.count
        yield _counter("edits_applied", "Facts taught and other updates made, in all versions", ["method"], applied)
        flops = sum(step.flops for step in self._steps.values())
        yield _counter("update_compute_flops", "Floating-point operations of all trainings", [], {(): flops})

    # What serves

    def _about_aliases(self, held: Mapping[str, Version]) -> Iterator[Metric]:
        info = {(alias, version.name, version.id[:12]): 1.0 for alias, version in held.items()}
        yield _gauge("version_info", "What each alias holds", ["alias", "version", "id"], info)
        since = {
            (alias, layer): float(count) for alias, version in held.items() for layer, count in self._since(version)
        }
        yield _gauge("edits_since_base", "Facts and updates that changed a block", ["alias", "layer"], since)
        reports = {alias: self._report(version) for alias, version in held.items()}
        first = {alias for alias, version in held.items() if len(self._shop.archive.lineage(version)) == 2}
        yield from _matrix_families(reports, first)
        yield from _measure_families(reports)
        old = {(alias,): self._old_edits(alias, version, reports[alias]) for alias, version in held.items()}
        yield _gauge("past_edit_retention_ratio", "Old edits still answered (teacher-forced)", ["alias"], old)

    def _since(self, version: Version) -> list[tuple[str, int]]:
        counted: Counter[str] = Counter()
        for step in self._shop.archive.lineage(version)[1:]:
            for layer in self._steps[step.id].layers:
                counted[layer] += self._steps[step.id].count
        return sorted(counted.items())

    def _report(self, version: Version) -> Mapping[str, Any]:
        try:
            return self._shop.archive.report(version) or {}
        except PerdureError:  # a damaged report: fsck tells, and the other metrics stand
            return {}

    def _old_edits(self, alias: str, version: Version, report: Mapping[str, Any]) -> float | None:
        """As asked again last; else as the report has it."""
        seen = [one for one in self._shop.archive.observations(alias) if one.version == version.id]
        found = [finding for finding in seen[-1].findings if finding.measure == COHORT] if seen else []
        asked = sum(finding.n for finding in found)
        if asked:
            return sum(finding.value * finding.n for finding in found) / asked
        figure = figures_of(report).get("old_edits")
        return figure.value if figure else None

    # Decisions

    def _about_decisions(self, versions: Mapping[str, Version]) -> Iterator[Metric]:
        decisions: Counter[tuple[str, str]] = Counter()
        for version, digest in self._history.reports:
            decisions += self._verdicts_of(versions[version], digest)
        yield _counter("gate_decisions", "What gates said, in all reports", ["gate", "result"], decisions)
        history = self._history
        yield _histogram(
            "approval_wait_seconds", "From a version's making to its first approval", history.waits, _WAITS
        )
        yield _histogram("rollback_seconds", "Rollbacks, verification included", history.rollbacks, _ROLLBACKS)
        verified = {("true",): float(history.verified[True]), ("false",): float(history.verified[False])}
        yield _counter("rollback_verified", "Rollbacks whose target was found whole, or not", ["ok"], verified)
        yield _counter("break_glass", "Emergencies", [], {(): float(history.breaks)})

    def _verdicts_of(self, version: Version, digest: str) -> Counter[tuple[str, str]]:
        if digest not in self._verdicts:
            try:
                self._verdicts[digest] = verdicts_of(self._shop.archive.stored_report(version, digest))
            except PerdureError:
                return Counter()
        return self._verdicts[digest]

    # Storage

    def _about_storage(self) -> Iterator[Metric]:
        archive = self._shop.archive
        yield _gauge("store_bytes", "Size of all objects", [], {(): float(archive.stored_bytes())})
        free = float(shutil.disk_usage(archive.folder).free)
        yield _gauge("store_free_bytes", "Space left on the workspace's disk", [], {(): free})
        last = archive.last_verified()
        when = None if last is None else datetime.fromisoformat(last).timestamp()
        yield _gauge("fsck_last_success_timestamp_seconds", "When every byte was last found whole", [], {(): when})
        yield _gauge("audit_chain_ok", "Whether the ledger's chain holds", [], {(): float(self._history.sound)})


def render_metrics(shop: "Workspace") -> str:
    """All metrics of a workspace, read anew; a server keeps a `Metrics` instead."""
    return Metrics(shop).text()


def _matrix_families(reports: Mapping[str, Mapping[str, Any]], first: Container[str]) -> Iterator[Metric]:
    """What reports say of the weights; `first` are the aliases that hold a first update, which is all of the change."""
    norms: dict[tuple[str, str], float] = {}
    conditions: dict[tuple[str, str], float] = {}
    for alias, report in reports.items():
        for row in report.get("matrices") or ():
            key = (alias, layer_of(row["name"]))
            norms[key] = max(norms.get(key, 0.0), row["relative_norm"])
            if row["condition_before"] and row["condition_after"] is not None:
                conditions[key] = max(conditions.get(key, 0.0), row["condition_after"] / row["condition_before"])
    labels = ["alias", "layer"]
    yield _gauge("edited_weight_norm_ratio", "Norm of all changes over the base matrix's", labels, norms)
    yield _gauge("edited_condition_number_ratio", "Condition number over the base's", labels, conditions)
    last = {key: value for key, value in norms.items() if key[0] in first}
    yield _gauge("update_relative_norm", "Norm of the last update over the matrix's, after one update", labels, last)


def _measure_families(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    lost: dict[tuple[str, ...], float] = {}
    for alias, report in reports.items():
        retention = report.get("retention") or {}
        for part in ([retention["overall"]] if retention else []) + list(retention.get("parts") or ()):
            name = str(part["name"]).removeprefix("retention.")
            lost[alias, name, "parent"] = -part["difference"]["value"]
            if part.get("against_base"):
                lost[alias, name, "base"] = -part["against_base"]["value"]
    yield _gauge("forgetting_score", "Share of a suite that was lost", ["alias", "suite", "against"], lost)
    for name, (key, words) in _RATIOS.items():
        found: dict[tuple[str, ...], float | None] = {}
        for alias, report in reports.items():
            rows = (report.get("edits") or {}).get("comparisons") or ()
            found[(alias,)] = next((row["after"]["value"] for row in rows if row["name"] == key), None)
        yield _gauge(name, f"Share of {words}", ["alias"], found)


def _gauge(
    name: str, words: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float | None] | Mapping[Any, Any]
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, f"{words}.", labels=labels)
    for key, value in sorted(values.items())[: _MOST * _MOST]:
        if value is not None:
            family.add_metric(key, value)
    return family


def _counter(name: str, words: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A counter; of more than a hundred label values the rarest count as "other"."""
    family = CounterMetricFamily(_PREFIX + name, f"{words}.", labels=labels)
    keyed = {key if isinstance(key, tuple) else (key,): value for key, value in values.items()}
    ranked = sorted(keyed.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(value for _, value in ranked[_MOST:])
    for key, value in sorted(ranked[:_MOST]):
        family.add_metric(key, value)
    if rest:
        family.add_metric(["other"] * len(labels), rest)
    return family


def _histogram(name: str, words: str, values: Sequence[float], ends: Sequence[float]) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, f"{words}.")
    buckets = [(str(end), float(sum(value <= end for value in values))) for end in ends]
    family.add_metric([], [*buckets, ("+Inf", float(len(values)))], sum(values))
    return family
