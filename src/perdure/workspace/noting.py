"""The part of a workspace that notes what is seen while versions serve: KPIs, and what asking again gave."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from perdure.errors import PerdureError
from perdure.measuring.kpis import Figure, KpiComparison, compare_kpis
from perdure.requests.kpis import KpiEntry, checked_kpi, checked_kpis, read_kpis, refuse_kpis
from perdure.requests.problems import Place, Problem
from perdure.workspace.deciding import Deciding
from perdure.workspace.observations import Kpi, Observation
from perdure.workspace.observing import PlacedKpi
from perdure.workspace.opened import current_user
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


class Noting(Deciding):
    """KPIs and observations."""

    # KPIs

    def enter_kpi(self, entry: "KpiEntry | dict[str, Any]", *, actor: str = "") -> Kpi:
        """Enter one figure of a KPI; it stays, and only a new row corrects it.

        Args:
            entry: The figure, or its fields.
            actor: Who enters it.

        Raises:
            SettingError: A field is missing or cannot be.
            RequestError: It does not agree with what was entered before.
        """
        checked = entry if isinstance(entry, KpiEntry) else checked_kpi(entry)
        return self._enter([(Place("the KPI"), checked)], actor)[0]

    def enter_kpis(self, rows: Sequence[Mapping[str, Any]], *, actor: str = "") -> list[Kpi]:
        """Enter several figures: all of them, or none where one cannot be.

        Args:
            rows: The fields of each.
            actor: Who enters them.

        Raises:
            RequestError: Every bad row, with the reason.
        """
        return self._enter(checked_kpis(rows), actor)

    def import_kpis(self, path: Path | str, *, actor: str = "") -> list[Kpi]:
        """Enter the KPIs of a CSV file: all of them, or none where a row is bad.

        Raises:
            RequestError: Every bad row, with the reason.
        """
        return self._enter(read_kpis(path), actor)

    def _enter(self, entries: Iterable[tuple[Place, KpiEntry]], actor: str) -> list[Kpi]:
        placed, problems, named = list[PlacedKpi](), list[Problem](), dict[str, Version]()
        for place, entry in entries:
            try:
                if entry.version not in named:
                    named[entry.version] = self.version(entry.version)
                placed.append(PlacedKpi(place, entry, named[entry.version]))
            except PerdureError as error:
                problems.append(Problem(place, str(error), "version"))
        if problems:
            raise refuse_kpis(problems)
        return self.archive.enter_kpis(placed, actor=actor or current_user())

    def kpis(self, *, corrected: bool = False) -> list[Kpi]:
        """Every KPI that was entered, oldest first; with `corrected` those as well that a later row corrects."""
        return self.archive.kpis(corrected=corrected)

    def compare_kpis(self, before: "str | Version", after: "str | Version") -> list[KpiComparison]:
        """Every KPI that was entered for both versions: how the periods of one differ from those of the other."""
        names = {version.id: version.name for version in self.archive.versions()}
        figures = [Figure(row.name, row.unit, row.better, names[row.version], row.value) for row in self.kpis()]
        return compare_kpis(figures, self.version(before).name, self.version(after).name)

    # Observations

    def observe(self, alias: str = "production", *, actor: str = "") -> Observation:
        """Ask what an alias holds again: the retention suite, held-out text, old edits by age; kept with its time.

        Args:
            alias: Whose version.
            actor: Who asks; perdure itself when not given.

        Raises:
            WorkspaceError: The alias holds nothing.
            SettingError: The model is an encoder, which writes nothing.
        """
        from perdure.workspace.monitoring import observe

        return observe(cast("Workspace", self), alias, actor=actor)

    def observations(self, alias: str | None = None) -> list[Observation]:
        """Every observation of what one alias held, or all of them, oldest first."""
        return self.archive.observations(alias)
