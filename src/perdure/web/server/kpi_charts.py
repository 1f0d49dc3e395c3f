"""KPIs over time as Vega-Lite specifications: periods, promotions, and the model beneath."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from perdure.web.charts import ACCENT, INK, MUTED, SAME, Chart, Spec, look
from perdure.web.server.kpis import Promotion, Series, entered
from perdure.web.server.words import _, language
from perdure.web.visible import one_line, squeeze, visible
from perdure.workspace.releases import Served

_DAYS = {"en": "%-d %b %Y", "ja": "%Y/%-m/%-d"}
_LONGEST = 40


def span(found: Sequence[Series]) -> tuple[int, int] | None:
    """The first and the last moment of all periods, in milliseconds since 1970; None without any."""
    rows = [row for one in found for row in one.rows]
    if not rows:
        return None
    return _start(min(row.period_start for row in rows)), _end(max(row.period_end for row in rows))


def kpi_chart(
    place: int, one: Series, names: Mapping[str, str], moves: Sequence[Promotion], ends: tuple[int, int]
) -> Chart:
    """One KPI: a line over each period, the version above where another begins, a rule for each promotion.

    Args:
        place: Which chart of the page it is.
        one: The KPI.
        names: From ids of versions to their names.
        moves: The promotions.
        ends: The first and the last moment of the page's charts.
    """
    unit, label = _short(one.unit), _short(one.name)
    rows = [_period(row, names[row.version], unit) for row in one.rows]
    tags = [now for old, now in pairwise([{"version": ""}, *rows]) if old["version"] != now["version"]]
    value = {"field": "value", "type": "quantitative", "title": unit, "scale": {"zero": False, "nice": True}}
    time = {"x": _time("start", ends), "x2": {"field": "end"}, "y": value}
    bars = {
        "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 4, "strokeCap": "round"},
        "encoding": {**time, "tooltip": {"field": "said", "type": "nominal"}},
    }
    versions = {
        "data": {"values": tags},
        "mark": {"type": "text", "align": "left", "dy": -11, "fontSize": 12, "fontWeight": 600, "color": INK},
        "encoding": {"x": _time("start", ends), "y": value, "text": {"field": "version", "type": "nominal"}},
    }
    layers = [*_promoted(moves, ends), bars, versions]
    return Chart(f"chart-kpi-{place}", label, label, _chart(label, rows, layers))


def model_chart(
    served: Iterable[Served], kept: Mapping[str, Sequence[float]], moves: Sequence[Promotion], ends: tuple[int, int]
) -> Chart | None:
    """What the version that served at each time kept of what the original could do; None where nothing is known.

    Args:
        served: What served when.
        kept: From ids of versions to value, low and high, in points.
        moves: The promotions.
        ends: The first and the last moment of the page's charts.
    """
    rows = [row for one in served if one.version in kept and (row := _served(one, kept[one.version], ends))]
    if not rows:
        return None
    label, unit = _("Change of what it could do, against the original"), _("points")
    y = {"type": "quantitative", "title": unit, "scale": {"zero": False, "nice": True}}
    time = {"x": _time("start", ends), "x2": {"field": "end"}}
    reach = {
        "mark": {"type": "rect", "color": ACCENT, "opacity": 0.15},
        "encoding": {**time, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    line = {
        "mark": {"type": "rule", "color": ACCENT, "strokeWidth": 3},
        "encoding": {**time, "y": {**y, "field": "value"}},
    }
    return Chart("chart-model", label, label, _chart(label, rows, [*_promoted(moves, ends), reach, line]))


def _chart(label: str, rows: Sequence[Mapping[str, Any]], layers: Sequence[Spec]) -> Spec:
    return {
        "description": label,
        "width": "container",
        "height": 200,
        "data": {"values": list(rows)},
        "layer": list(layers),
        "config": look(),
    }


def _time(field: str, ends: tuple[int, int]) -> Spec:
    axis = {"title": None, "format": _DAYS[language()], "labelOverlap": True, "tickCount": 6, "grid": False}
    return {"field": field, "type": "temporal", "scale": {"type": "utc", "domain": list(ends)}, "axis": axis}


def _promoted(moves: Sequence[Promotion], ends: tuple[int, int]) -> list[Spec]:
    """A rule where another version began to serve, and its name at the foot."""
    within = [{"at": at, "to": f"→ {move.after}"} for move in moves if ends[0] <= (at := _moment(move.time)) <= ends[1]]
    if not within:
        return []
    x = {"x": _time("at", ends)}
    rule = {"mark": {"type": "rule", "color": SAME, "strokeDash": [4, 4]}, "encoding": x}
    says = {"type": "text", "align": "left", "dx": 4, "dy": -4, "baseline": "bottom", "fontSize": 11, "color": MUTED}
    name = {"field": "to", "type": "nominal"}
    text = {"mark": says, "encoding": {**x, "y": {"value": "height"}, "text": name}}
    return [{"data": {"values": within}, "layer": [rule, text]}]


def _period(row: Any, version: str, unit: str) -> dict[str, Any]:
    period = row.period_start if row.period_start == row.period_end else f"{row.period_start} – {row.period_end}"
    said = f"{version}, {period}: {entered(row.value)} {unit}"
    ends = {"start": _start(row.period_start), "end": _end(row.period_end)}
    return {**ends, "value": row.value, "version": version, "said": said}


def _served(one: Served, figure: Sequence[float], ends: tuple[int, int]) -> dict[str, float] | None:
    start = max(_moment(one.since), ends[0])
    end = min(_moment(one.until) if one.until else ends[1], ends[1])
    value, low, high = figure
    return {"start": start, "end": end, "value": value, "low": low, "high": high} if start < end else None


def _start(day: str) -> int:
    return _milliseconds(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC))


def _end(day: str) -> int:
    """The end of a day, which belongs to its period."""
    return _start(day) + _milliseconds_of(timedelta(days=1))


def _moment(time: str) -> int:
    return _milliseconds(datetime.fromisoformat(time))


def _milliseconds(when: datetime) -> int:
    return _milliseconds_of(when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC))


def _milliseconds_of(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)


def _short(text: str) -> str:
    return squeeze(one_line(visible(text)), _LONGEST)
