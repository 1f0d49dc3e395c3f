"""What is seen while versions serve: KPIs that people enter, and what asking a version again gave."""

from dataclasses import dataclass, replace
from typing import Literal

from perdure.governance.drift import Finding


@dataclass(frozen=True)
class Kpi:
    """One figure of one KPI as it was entered.

    Attributes:
        sequence: The ledger row.
        name: Of the KPI.
        unit: Of its values.
        better: Which direction is good.
        version: The id of the version that served.
        period_start: The first day, such as 2026-03-02.
        period_end: The last day, which belongs to the period.
        value: The figure.
        n: How many cases stand behind it; None where it was not told.
        corrects: The row that it stands in for, if any.
        actor: Who entered it.
        time: When, UTC, ISO 8601.
        in_force: Whether no later row corrects it.
    """

    sequence: int
    name: str
    unit: str
    better: Literal["higher", "lower"]
    version: str
    period_start: str
    period_end: str
    value: float
    n: int | None
    corrects: int | None
    actor: str
    time: str
    in_force: bool = True

    def corrected(self) -> "Kpi":
        """The same row, with a later one that corrects it."""
        return replace(self, in_force=False)


@dataclass(frozen=True)
class Observation:
    """What asking a version again gave.

    Attributes:
        sequence: The ledger row.
        alias: The alias that held the version.
        version: The version's id.
        policy: The digest of the policy whose limits were held to.
        time: When, UTC, ISO 8601.
        actor: Who asked.
        findings: What was found.
    """

    sequence: int
    alias: str
    version: str
    policy: str
    time: str
    actor: str
    findings: tuple[Finding, ...]

    @property
    def alerts(self) -> tuple[Finding, ...]:
        """The findings beyond their limits."""
        return tuple(found for found in self.findings if found.state == "alert")
