"""KPIs: what a company measures of its own work while a version serves, beside what reports say of it."""

from typing import Annotated, Any

from fastapi import Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from perdure.errors import PerdureError, RequestError
from perdure.measuring.kpis import NO_EXPERIMENT
from perdure.requests.kpis import COLUMNS
from perdure.requests.problems import Problem
from perdure.web.charts import Chart
from perdure.web.server import kpi_charts, kpis, uploads
from perdure.web.server.access import ENTER, ENTER_FILE, SEE
from perdure.web.server.naming import LAST, VERSION
from perdure.web.server.rendering import page
from perdure.web.server.routing import Routes, identity_of, services_of
from perdure.web.server.seeing import Sight
from perdure.web.server.told import told
from perdure.web.server.words import _

routes = Routes("/kpis")
_DRAWN, _ROWS, _ALL_ROWS = 12, 40, 2000
Named = Annotated[str, Query(pattern=f"^$|{VERSION}")]
Word = Annotated[str, Form(max_length=200)]


@routes.get("", SEE)
def show(
    request: Request,
    before: Named = "",
    after: Named = "",
    correct: Annotated[int, Query(ge=0, le=LAST)] = 0,
    all: bool = False,
) -> Response:
    """Every KPI over time, two versions compared, the forms to enter more."""
    return _page(request, pair=(before, after), correct=correct, shown=_ALL_ROWS if all else _ROWS)


@routes.post("", ENTER)
def enter(
    request: Request,
    name: Word = "",
    value: Word = "",
    unit: Word = "",
    better: Word = "",
    version: Word = "",
    period_start: Word = "",
    period_end: Word = "",
    n: Word = "",
    corrects: Word = "",
) -> Response:
    """Enter one figure, or one that corrects another."""
    typed = {"name": name, "value": value, "unit": unit, "better": better, "version": version}
    typed |= {"period_start": period_start, "period_end": period_end, "n": n, "corrects": corrects}
    given = {key: text.strip() for key, text in typed.items() if text.strip() or key not in ("n", "corrects")}
    try:
        row = services_of(request).shop.enter_kpis([given], actor=identity_of(request).name)[0]
    except PerdureError as error:
        return _page(request, status=422, typed=typed, faults=_faults(error))
    return RedirectResponse(f"/kpis#row-{row.sequence}", status_code=303)


@routes.post("/upload", ENTER_FILE)
def upload(request: Request, file: UploadFile) -> Response:
    """Enter the figures of a CSV file: all of them, or none."""
    services, me = services_of(request), identity_of(request)
    try:
        uploads.enter_kpis(services.shop, file.filename or "", file.file.read(), actor=me.name)
    except PerdureError as error:
        return _page(request, status=422, file_faults=_file_faults(error))
    return RedirectResponse("/kpis#rows", status_code=303)


def _faults(error: PerdureError) -> list[str]:
    """What is wrong with a form, by its fields."""
    labels = fields()
    found = [problem for problem in getattr(error, "problems", ()) if isinstance(problem, Problem)]
    words = [
        f"{labels.get(one.field, one.field)}: {told(one.reason)}" if one.field else told(one.reason) for one in found
    ]
    return words or [told(str(error))]


def _file_faults(error: PerdureError) -> list[str]:
    """Every bad row of a file, where it stands and why."""
    found = error.problems if isinstance(error, RequestError) else ()
    return [told(str(one)) for one in found] or [told(str(error))]


def fields() -> dict[str, str]:
    """The fields of a figure, as the form calls them."""
    return {
        "name": _("What is measured"),
        "value": _("Value"),
        "unit": _("Unit"),
        "better": _("Better is"),
        "version": _("Version that served"),
        "period_start": _("First day"),
        "period_end": _("Last day"),
        "n": _("Cases behind it (if known)"),
    }


def _page(
    request: Request,
    *,
    status: int = 200,
    pair: tuple[str, str] = ("", ""),
    correct: int = 0,
    shown: int = _ROWS,
    typed: dict[str, Any] | None = None,
    **context: Any,
) -> Response:
    services = services_of(request)
    sight = Sight(services.shop)
    rows = services.shop.kpis(corrected=True)
    found, moves = kpis.series(sight, services.watch), kpis.promotions(sight)
    chosen = pair if all(pair) else kpis.default_pair(moves, found)
    corrected = next((row for row in rows if row.sequence == correct and row.in_force), None)
    if typed is None:
        serving = sight.aliases.get(kpis.SERVING)
        blank = {**dict.fromkeys((*COLUMNS, "corrects"), ""), "version": serving.name if serving else ""}
        typed = kpis.typed_of(corrected, sight.name(corrected.version)) if corrected else blank
    more = {"faults": [], "file_faults": [], **context}
    return page(
        request,
        "kpis",
        status=status,
        sight=sight,
        found=list(zip(found[:_DRAWN], _charts(sight, found, moves), strict=True)),
        model=_model(services.watch, sight, found, moves),
        pair=kpis.compare(sight, *map(services.shop.version, chosen)) if chosen else None,
        moves=moves[::-1],
        left_out=max(0, len(found) - _DRAWN),
        rows=rows[-shown:][::-1],
        count=len(rows),
        typed=typed,
        labels=fields(),
        names=[one.name for one in found],
        versions=[version.name for version in reversed(sight.versions)][:500],
        columns=COLUMNS,
        caution=told(NO_EXPERIMENT),
        **more,
    )


def _charts(sight: Sight, found: list[kpis.Series], moves: list[kpis.Promotion]) -> list[Chart]:
    drawn = found[:_DRAWN]
    ends = kpi_charts.span(drawn)
    names = {version.id: version.name for version in sight.versions}
    return [kpi_charts.kpi_chart(place, one, names, moves, ends) for place, one in enumerate(drawn) if ends]


def _model(watch: Any, sight: Sight, found: list[kpis.Series], moves: list[kpis.Promotion]) -> Chart | None:
    ends = kpi_charts.span(found[:_DRAWN])
    if ends is None or kpis.SERVING not in sight.aliases:
        return None
    served = sight.shop.history(kpis.SERVING)
    held = {one.version: watch.figures(sight.by_id[one.version]) for one in served if one.version in sight.by_id}
    kept = {version: figures["kept"] for version, figures in held.items() if "kept" in figures}
    return kpi_charts.model_chart(served, kept, moves, ends)
