"""The API: what there is to see."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from perdure.governance.curves import figures_of
from perdure.governance.explaining import explain
from perdure.measuring.kpis import NO_EXPERIMENT
from perdure.web.server import asking
from perdure.web.server.access import GOVERN, SEE, SELF
from perdure.web.server.api import shapes
from perdure.web.server.canaries import shown
from perdure.web.server.judging import verdict_of
from perdure.web.server.naming import LAST, VERSION, Alias, JobId, Ref
from perdure.web.server.pages import requesting as pages
from perdure.web.server.pages.requesting import visible_job
from perdure.web.server.routing import NotFoundError, Routes, identity_of, services_of
from perdure.web.server.seeing import Sight
from perdure.workspace import Version
from perdure.workspace.observations import Kpi
from perdure.workspace.releases import Canary

routes = Routes("/api/v1", "look")
Named = Annotated[str, Query(pattern=VERSION)]
_ZIP = {200: {"description": "The pack", "content": {"application/zip": {}}}}


@routes.get("/openapi.json", SEE, include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The description of this API."""
    return JSONResponse(request.app.openapi())


@routes.get("/me", SELF)
def me(request: Request) -> shapes.Me:
    """Who makes the request, with which roles."""
    found = identity_of(request)
    return shapes.Me(name=found.name, way=found.way, roles=sorted(found.roles), scopes=sorted(found.scopes))


@routes.get("/versions", SEE)
def versions(
    request: Request,
    before: Annotated[int, Query(ge=0, le=10**9)] = 10**9,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[shapes.VersionShown]:
    """Versions, the newest first."""
    sight = Sight(services_of(request).shop)
    found = [version for version in sight.versions if version.number < before][-limit:]
    return [_shown(sight, version) for version in reversed(found)]


@routes.get("/versions/{ref}", SEE)
def version(request: Request, ref: Ref) -> shapes.VersionCard:
    """One version, with what a decision looks at."""
    shop = services_of(request).shop
    chosen = shop.version(ref)
    standing = shop.standing(chosen)
    approvals = [vars(one.approval) | {"void": one.void} for one in shop.approvals(chosen)]
    rejections = [{**vars(one), "text": one.reason} for one in shop.rejections(chosen)]
    return shapes.VersionCard(
        **_shown(Sight(shop), chosen).model_dump(),
        recipe=dict(chosen.manifest.recipe),
        report=shop.archive.report_digest(chosen) or "",
        policy=shop.policy.digest,
        verdict=verdict_of(shop, chosen),
        required=standing.required,
        missing=standing.missing,
        approvals=[shapes.ConsentShown.model_validate(one) for one in approvals],
        rejections=[shapes.SaidShown.model_validate(one) for one in rejections],
        comments=[shapes.SaidShown.model_validate(one) for one in shop.comments(chosen)],
    )


@routes.get("/versions/{ref}/report", SEE)
def report(request: Request, ref: Ref) -> Response:
    """The latest report of a version, judged by the policy in force."""
    found = services_of(request).shop.gate(ref)
    return Response(found.model_dump_json(), media_type="application/json")


@routes.get("/versions/{ref}/facts", SEE)
def facts(request: Request, ref: Ref) -> list[dict[str, Any]]:
    """The facts that a version was asked to learn."""
    shop = services_of(request).shop
    return [{"id": fact.id, **fact.model_dump(mode="json")} for fact in shop.facts(shop.version(ref))]


@routes.get("/difference", SEE)
def difference(request: Request, first: Named, second: Named) -> dict[str, Any]:
    """What differs between two versions, where that was computed before; ask for it at `/compare`."""
    shop = services_of(request).shop
    found = asking.known_difference(shop, shop.version(first), shop.version(second))
    if found is None:
        raise NotFoundError("these two were not compared yet; POST /api/v1/compare")
    return dict(found)


@routes.get("/aliases", SEE)
def aliases(request: Request) -> dict[str, shapes.VersionShown]:
    """What each alias holds."""
    sight = Sight(services_of(request).shop)
    return {alias: _shown(sight, held) for alias, held in sight.aliases.items()}


@routes.get("/aliases/{alias}/history", SEE)
def history(request: Request, alias: Alias) -> list[shapes.Move]:
    """What served when."""
    return [shapes.Move.model_validate(vars(one)) for one in services_of(request).shop.history(alias)]


@routes.get("/canaries", SEE)
def canaries(request: Request) -> list[shapes.CanaryShown]:
    """Every canary, oldest first."""
    sight = Sight(services_of(request).shop)
    return [canary_shown(sight, canary) for canary in sight.shop.canaries()]


@routes.get("/ledger", SEE)
def ledger(
    request: Request,
    words: Annotated[str, Query(max_length=200)] = "",
    before: Annotated[int, Query(ge=1, le=LAST)] = LAST,
    after: Annotated[int, Query(ge=0, le=LAST)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[shapes.Entry]:
    """Rows of the ledger, oldest first: the newest so many of those asked for."""
    rows = services_of(request).shop.archive.log(limit, before=before, after=after, words=words)
    return [shapes.Entry.model_validate(row) for row in rows]


@routes.get("/policy", SEE)
def policy(request: Request) -> shapes.PolicyShown:
    """The policy in force, as it is and in words."""
    found = services_of(request).shop.policy
    limits = found.model_dump(mode="json", exclude_none=True)
    return shapes.PolicyShown(digest=found.digest, limits=limits, explained=dict(explain(found)))


@routes.get("/lineage", SEE)
def search(
    request: Request,
    words: Annotated[str, Query(min_length=1, max_length=200)],
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[dict[str, Any]]:
    """Facts and tasks that hold these words, the newest first."""
    return [dict(vars(found)) for found in services_of(request).shop.search(words, limit=limit)]


@routes.get("/lineage/{fact}", SEE)
def lineage(request: Request, fact: str) -> dict[str, Any]:
    """Everything about one fact or task."""
    found = services_of(request).shop.lineage_of(fact[:64])
    listed = {
        name: [vars(one) for one in getattr(found, name)] for name in ("taught", "removed", "conflicts", "answers")
    }
    return {**vars(found), **listed, "holds": found.holds}


@routes.get("/monitor", SEE)
def monitor(request: Request) -> list[shapes.MeasureShown]:
    """What reports say of each version, with the limits of the policy."""
    services = services_of(request)
    return [shapes.MeasureShown.model_validate(one) for one in services.watch.measures(services.shop.policy)]


@routes.get("/kpis", SEE)
def kpis(request: Request, corrected: bool = False) -> list[shapes.KpiShown]:
    """Every KPI that was entered, oldest first; with `corrected` those as well that a later row corrects."""
    shop = services_of(request).shop
    return kpis_shown(Sight(shop), shop.kpis(corrected=corrected))


@routes.get("/kpis/comparison", SEE)
def compared_kpis(request: Request, before: Named, after: Named) -> shapes.KpisCompared:
    """KPIs under two versions, and beside them what reports say of both."""
    shop = services_of(request).shop
    pair = shop.version(before), shop.version(after)
    model = [figures_of(shop.archive.report(version) or {}) for version in pair]
    return shapes.KpisCompared(
        before=pair[0].name,
        after=pair[1].name,
        kpis=shop.compare_kpis(*pair),
        model=[{name: vars(figure) for name, figure in side.items()} for side in model],
        note=NO_EXPERIMENT,
    )


@routes.get("/jobs", SEE)
def jobs(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> list[shapes.JobShown]:
    """The newest requests for changes."""
    return [shapes.JobShown.model_validate(job) for job in services_of(request).jobs.newest(limit)]


@routes.get("/jobs/{job}", SEE)
def job(request: Request, job: JobId) -> shapes.JobShown:
    """One request: how far it is, what came out."""
    return shapes.JobShown.model_validate(visible_job(request, job))


@routes.get("/jobs/{job}/evidence", SEE, response_class=Response, responses=_ZIP)
def evidence(request: Request, job: JobId) -> Response:
    """The evidence pack that a request made."""
    return pages.evidence(request, job)


@routes.get("/members", GOVERN)
def members(request: Request) -> dict[str, list[str]]:
    """Who has which roles."""
    return {name: sorted(roles) for name, roles in services_of(request).shop.members().items()}


def canary_shown(sight: Sight, canary: Canary) -> shapes.CanaryShown:
    """A canary as the API gives it, with what the gateway saw of it."""
    found = shown(sight, canary)
    seen = (found.seen.measures, found.seen.decision) if found.seen else (None, None)
    return shapes.CanaryShown(
        number=canary.number,
        alias=canary.alias,
        stable=found.stable,
        candidate=found.candidate,
        running=canary.running,
        weight=canary.weight,
        plan=canary.plan,
        steps=[shapes.CanaryMoved.model_validate(step) for step in canary.steps],
        measures=seen[0],
        next=seen[1],
    )


def kpis_shown(sight: Sight, rows: Sequence[Kpi]) -> list[shapes.KpiShown]:
    """Figures as the API gives them, with the names of their versions."""
    return [shapes.KpiShown.model_validate({**vars(row), "version": sight.name(row.version)}) for row in rows]


def _shown(sight: Sight, version: Version) -> shapes.VersionShown:
    names = ("number", "name", "id", "parent", "requester", "created", "status")
    told = {name: getattr(version, name) for name in names}
    return shapes.VersionShown(**told, aliases=sight.pointing(version))
