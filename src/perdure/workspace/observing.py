"""The part of an archive that keeps what is seen while versions serve: KPIs, and what asking them again gave."""

import json
import sqlite3
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from perdure.content import canonical_json
from perdure.errors import IntegrityError
from perdure.governance.drift import Finding
from perdure.requests.kpis import KpiEntry, refuse_kpis
from perdure.requests.problems import Place, Problem
from perdure.workspace import aliases
from perdure.workspace.canarying import Canarying
from perdure.workspace.database import translated
from perdure.workspace.ledger import append_row, checked_actor
from perdure.workspace.observations import Kpi, Observation
from perdure.workspace.records import Version
from perdure.workspace.rows import governed_rows


class PlacedKpi(NamedTuple):
    """An entry, where it stands, and the version that it names."""

    place: Place
    entry: KpiEntry
    version: Version


class Observing(Canarying):
    """KPIs and observations."""

    def enter_kpis(self, placed: Sequence[PlacedKpi], *, actor: str) -> list[Kpi]:
        """Enter KPIs: all of them, or none where one cannot be.

        Args:
            placed: The entries.
            actor: Who enters them.

        Raises:
            RequestError: One says another unit or direction than before, has a period that was told already, or
                corrects what it cannot; every reason of every row is told.
        """
        actor = checked_actor(actor)
        with self._writing("kpi", actor), self._database.transaction() as connection:
            known, problems, made = _Known(self._kpis(connection)), list[Problem](), set[int]()
            for one in placed:
                reason = known.objection(one)
                if reason:
                    problems.append(Problem(one.place, reason))
                    continue
                sequence = _enter(connection, one, actor)
                made.add(sequence)
                known.add(_entered(one, sequence, actor))
            if problems:
                raise refuse_kpis(problems)
        return [row for row in self.kpis() if row.sequence in made]

    @translated("reading the KPIs")
    def kpis(self, *, corrected: bool = False) -> list[Kpi]:
        """Every KPI that was entered, oldest first; with `corrected` those as well that a later row corrects."""
        return [row for row in self._kpis(self._checked()) if corrected or row.in_force]

    def _kpis(self, connection: sqlite3.Connection) -> list[Kpi]:
        rows = governed_rows(connection, "kpis")
        gone = {row["corrects"] for row in rows}
        fields = [name for name in Kpi.__dataclass_fields__ if name != "in_force"]
        return [Kpi(**{name: row[name] for name in fields}, in_force=row["sequence"] not in gone) for row in rows]

    def put_observation(
        self, version: Version, alias: str, findings: Sequence[Finding], *, actor: str, policy: str
    ) -> Observation:
        """Keep what asking a version again gave.

        Args:
            version: Which.
            alias: The alias that held it.
            findings: What was found.
            actor: Who asked.
            policy: The digest of the policy whose limits the findings were held to.
        """
        actor, version, alias = checked_actor(actor), self._own(version), aliases.checked_alias(alias)
        text = canonical_json([finding.model_dump(mode="json") for finding in findings])
        values = {"alias": alias, "version": version.id, "policy": policy, "findings": text}
        with self._writing("observe", actor), self._database.transaction() as connection:
            append_row(connection, "observations", values, action="observe", actor=actor)
        return self.observations(alias)[-1]

    @translated("reading the observations")
    def observations(self, alias: str | None = None) -> list[Observation]:
        """Every observation of what one alias held, or all of them, oldest first."""
        rows = governed_rows(self._checked(), "observations")
        return [_observation(row) for row in rows if alias in (None, row["alias"])]

    # What the metrics need

    @translated("reading the sizes of the objects")
    def stored_bytes(self) -> int:
        """The size of every object and pack that is listed, in bytes."""
        query = "SELECT COALESCE((SELECT SUM(bytes) FROM objects), 0) + COALESCE((SELECT SUM(bytes) FROM packs), 0)"
        return int(self._checked().execute(query).fetchone()[0])

    @translated("reading a report")
    def stored_report(self, version: Version, digest: str) -> dict[str, Any]:
        """A report of a version, also one that a later report replaced.

        Raises:
            IntegrityError: It is missing or damaged.
        """
        return self._read_report(version, digest)


class _Known:
    """The figures that are there, by what a new one must agree with: nothing is searched for it row by row."""

    def __init__(self, rows: Iterable[Kpi]) -> None:
        self._rows: dict[int, Kpi] = {}
        self._in_force: dict[str, dict[int, Kpi]] = {}  # by name; all of one unit and direction
        self._periods: dict[tuple[str, str], list[tuple[str, str, int]]] = {}  # by name and version; none overlaps
        for row in rows:
            self.add(row)

    def add(self, row: Kpi) -> None:
        """Note a row, the oldest first; what it corrects is in force no more."""
        if row.corrects in self._rows:
            self._retire(self._rows[row.corrects])
        self._rows[row.sequence] = row
        if row.in_force:
            self._in_force.setdefault(row.name, {})[row.sequence] = row
            insort(self._periods.setdefault((row.name, row.version), []), _period(row))

    def _retire(self, row: Kpi) -> None:
        if self._in_force.get(row.name, {}).pop(row.sequence, None) is not None:
            periods = self._periods[row.name, row.version]
            del periods[bisect_left(periods, _period(row))]

    def objection(self, one: PlacedKpi) -> str:
        """Why an entry cannot stand beside those that are known; empty when it can."""
        entry, name = one.entry, one.entry.name
        target = self._rows.get(entry.corrects or 0)
        if entry.corrects is not None and (target is None or target.name != name):
            return f"corrects row {entry.corrects}, which is no entry of {name!r}; see perdure kpi list"
        if target is not None and target.sequence not in self._in_force.get(name, {}):
            return f"corrects row {entry.corrects}, which was corrected already; correct its correction"
        other = next((row for row in self._in_force.get(name, {}).values() if row is not target), None)
        if other is not None and (other.unit, other.better) != (entry.unit, entry.better):
            return f"{name!r} is in {other.unit} and better {other.better} since row {other.sequence}; write it so"
        told = self._overlapping(one, target)
        if told is not None:
            period = f"{told.period_start} to {told.period_end}"
            return (
                f"{name!r} of {one.version.name} has {period} already (row {told.sequence}); correct that row instead"
            )
        return ""

    def _overlapping(self, one: PlacedKpi, target: Kpi | None) -> Kpi | None:
        """The first row in force whose period an entry's overlaps, besides the one that it corrects."""
        start, end = one.entry.period_start.isoformat(), one.entry.period_end.isoformat()
        periods = self._periods.get((one.entry.name, one.version.id), [])
        place = max(0, bisect_left(periods, (start,)) - 1)  # the one before may reach into it
        for begins, ends, sequence in periods[place : place + 3]:
            if begins <= end and start <= ends and self._rows[sequence] is not target:
                return self._rows[sequence]
        return None


def _period(row: Kpi) -> tuple[str, str, int]:
    return row.period_start, row.period_end, row.sequence


def _values(one: PlacedKpi) -> dict[str, Any]:
    values = one.entry.model_dump(mode="json")
    return {**values, "value": float(one.entry.value), "version": one.version.id}


def _enter(connection: sqlite3.Connection, one: PlacedKpi, actor: str) -> int:
    return append_row(connection, "kpis", _values(one), action="kpi", actor=actor)


def _entered(one: PlacedKpi, sequence: int, actor: str) -> Kpi:
    return Kpi(**_values(one), sequence=sequence, actor=actor, time="")


def _observation(row: dict[str, Any]) -> Observation:
    try:
        findings = tuple(Finding.model_validate(found) for found in json.loads(row["findings"]))
    except ValueError as error:
        raise IntegrityError(f"row {row['sequence']} of observations cannot be read: {error}") from error
    told = {name: row[name] for name in ("sequence", "alias", "version", "policy", "time", "actor")}
    return Observation(**told, findings=findings)
