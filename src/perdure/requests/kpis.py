"""KPIs as a company enters them: what it measures of its own work, for a version and a period."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from perdure.errors import SettingError
from perdure.requests.formats import read_table
from perdure.requests.problems import Place, Problem, Row, refusal, refuse_whole
from perdure.requests.readers import BOM, capped, read_bytes
from perdure.requests.wording import fold, shorten

COLUMNS = ("name", "unit", "better", "version", "period_start", "period_end", "value", "n")
_OPTIONAL = ("n",)
_ADVICE = "Nothing was entered. Correct these rows and import the file again."


class KpiEntry(BaseModel):
    """One figure of one KPI, as entered.

    Attributes:
        name: Such as "rework hours"; written the same way each time.
        unit: Such as "h per week".
        better: Which direction is good.
        version: The version that served: v3, an alias, or the first digits of an id.
        period_start: The first day of the period.
        period_end: Its last day, which belongs to it.
        value: The figure.
        n: How many cases stand behind it, where that is known.
        corrects: The number of an earlier row that this one stands in for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=100)
    unit: str = Field(max_length=40)
    better: Literal["higher", "lower"]
    version: str = Field(min_length=1, max_length=64)
    period_start: date
    period_end: date
    value: float
    n: int | None = Field(None, ge=1, lt=1 << 53)
    corrects: int | None = Field(None, ge=1, lt=1 << 53)

    @field_validator("name", "unit")
    @classmethod
    def _said(cls, text: str) -> str:
        text = fold(text, case=False)
        if not text or not text.isprintable():
            raise ValueError("must be printable words")
        return text

    @field_validator("value")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("must be a finite number")
        return value

    @field_validator("period_end")
    @classmethod
    def _in_order(cls, end: date, info: ValidationInfo) -> date:
        start = info.data.get("period_start")
        if start is not None and end < start:
            raise ValueError(f"is before the period's first day, {start}")
        return end


def checked_kpi(values: Mapping[str, Any]) -> KpiEntry:
    """One entry.

    Raises:
        SettingError: Something is missing or cannot be; every reason is named.
    """
    try:
        return KpiEntry.model_validate(values)
    except ValidationError as error:
        reasons = [f"{name}: {reason}" for name, reason in _reasons(error)]
        raise SettingError(f"the KPI cannot be entered: {'; '.join(reasons)}") from error


def read_kpis(path: Path | str) -> list[tuple[Place, KpiEntry]]:
    """The entries of a CSV file with where each stands.

    Args:
        path: A file with the columns name, unit, better, version, period_start, period_end, value and, if known, n.

    Raises:
        RequestError: The file cannot be read, or rows are bad; `.problems` has every reason of every row.
    """
    name, data = read_bytes(Path(path), (".csv",))
    entries, problems = list[tuple[Place, KpiEntry]](), list[Problem]()
    for row in capped(read_table(data.removeprefix(BOM), name, _header_fault, _object_of), name):
        found = row.problems or tuple(_checked(row, entries))
        problems += found
    if problems:
        raise refuse_kpis(problems)
    if not entries:
        raise refuse_whole(name, "holds no KPI")
    return entries


def checked_kpis(rows: Sequence[Mapping[str, Any]], name: str = "KPIs") -> list[tuple[Place, KpiEntry]]:
    """The entries of rows in memory, with where each stands.

    Args:
        rows: The fields of each.
        name: What the list is called in messages.

    Raises:
        RequestError: Rows are bad; `.problems` has every reason of every row.
    """
    entries, problems = list[tuple[Place, KpiEntry]](), list[Problem]()
    for number, values in enumerate(rows):
        problems += _checked(Row(Place(name, number, "index"), dict(values)), entries)
    if problems:
        raise refuse_kpis(problems)
    return entries


def refuse_kpis(problems: Sequence[Problem]) -> Exception:
    """The error for rows of KPIs that cannot be entered."""
    return refusal(problems, _ADVICE)


def _checked(row: Row, entries: list[tuple[Place, KpiEntry]]) -> Iterator[Problem]:
    values = row.value if isinstance(row.value, dict) else {}
    try:
        entries.append((row.place, KpiEntry.model_validate(values)))
    except ValidationError as error:
        for name, reason in _reasons(error):
            yield Problem(row.place, reason, name, shorten(values.get(name)))


def _reasons(error: ValidationError) -> Iterator[tuple[str, str]]:
    for part in error.errors(include_url=False, include_context=False):
        yield ".".join(map(str, part["loc"])), part["msg"].removeprefix("Value error, ")


def _header_fault(names: Sequence[str]) -> str:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        return f"the header has the unknown column {shorten(unknown[0])}. Known: {', '.join(COLUMNS)}"
    missing = [name for name in COLUMNS if name not in names and name not in _OPTIONAL]
    return f"the header lacks {', '.join(missing)}. Known columns: {', '.join(COLUMNS)}" if missing else ""


def _object_of(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    pairs = zip(names, cells, strict=True)
    return {name: cell.strip() for name, cell in pairs if cell.strip() or name not in _OPTIONAL}
