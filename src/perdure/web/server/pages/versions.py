"""Versions: all of them, one of them as somebody sees it who decides, and what differs between two."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import RedirectResponse, Response

from perdure.errors import WorkspaceError
from perdure.web.report import render_report
from perdure.web.server import asking
from perdure.web.server.access import COMPARE, SEE
from perdure.web.server.canaries import free_aliases, of_version
from perdure.web.server.confirmations import approving, breaking
from perdure.web.server.graph import draw
from perdure.web.server.judging import candidate, hindrance
from perdure.web.server.naming import VERSION, Ref
from perdure.web.server.proving import proof
from perdure.web.server.rendering import page
from perdure.web.server.routing import Routes, identity_of, services_of
from perdure.web.server.seeing import Sight, made_with
from perdure.web.words import language

routes = Routes("/versions")
_PAGE, _DRAWN = 50, 40
Named = Annotated[str, Query(pattern=VERSION)]


@routes.get("", SEE)
def versions(request: Request, before: Annotated[int, Query(ge=0, le=10**9)] = 10**9) -> Response:
    """Every version, the newest first."""
    sight = Sight(services_of(request).shop)
    found = [version for version in sight.versions if version.number < before]
    return page(
        request,
        "versions",
        sight=sight,
        made_with=made_with,
        rows=found[-_PAGE:][::-1],
        earlier=found[-_PAGE].number if len(found) > _PAGE else None,
        graph=draw(found[-_DRAWN:], sight.aliases),
        names=[version.name for version in reversed(sight.versions)][:500],
    )


@routes.get("/diff", SEE)
def difference(request: Request, first: Named, second: Named) -> Response:
    """What differs between two versions: known already, or asked for."""
    services = services_of(request)
    sight = Sight(services.shop)
    pair = services.shop.version(first), services.shop.version(second)
    return page(
        request,
        "difference",
        sight=sight,
        pair=pair,
        known=asking.known_difference(services.shop, *pair),
        job=asking.comparing(services, *pair),
        names=[version.name for version in reversed(sight.versions)][:500],
    )


@routes.post("/diff", COMPARE)
def compare(request: Request, first: Named, second: Named) -> Response:
    """Ask the worker what differs between two versions."""
    services = services_of(request)
    pair = services.shop.version(first), services.shop.version(second)
    asking.compare(services, *pair, requester=identity_of(request).name)
    return RedirectResponse(f"/versions/diff?first={pair[0].name}&second={pair[1].name}", status_code=303)


@routes.get("/{ref}", SEE)
def version(request: Request, ref: Ref) -> Response:
    """One version: headline, decision, answers before and after, try-it box, the report's sections."""
    services, me = services_of(request), identity_of(request)
    sight = Sight(services.shop)
    chosen = services.shop.version(ref)
    found = candidate(sight, chosen)
    return page(
        request,
        "version",
        sight=sight,
        found=found,
        version=chosen,
        made_with=made_with,
        hindrance=hindrance(found, me.name),
        proof=proof(request, approving(chosen.id, found.seen, found.policy)),
        emergency=proof(request, breaking(chosen.id, "production")),
        storage=services.shop.archive.storage(chosen),
        aliases=sorted({"staging", "production", *sight.aliases}),
        rejected=services.shop.rejected(chosen),
        canaries=of_version(sight, chosen),
        free=free_aliases(sight, chosen),
    )


@routes.get("/{ref}/report", SEE)
def report(request: Request, ref: Ref) -> Response:
    """The report as one file that needs no server."""
    shop = services_of(request).shop
    chosen = shop.version(ref)
    found = shop.report(chosen)
    if found is None:
        raise WorkspaceError(f"{chosen.name} has no report; measure it first")
    # A download, not a page of this server: its scripts stand in it and run nowhere near these cookies.
    headers = {"content-disposition": f'attachment; filename="{chosen.name}.html"'}
    text = render_report(found, language=language())
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
