"""The first page: what serves, whether all is well, what waits for somebody."""

import shutil

from fastapi import Request
from fastapi.responses import Response

from perdure.web.server.access import ACCOUNT, MEMBER
from perdure.web.server.canaries import shown
from perdure.web.server.rendering import page
from perdure.web.server.routing import Routes, identity_of, services_of
from perdure.web.server.seeing import Sight, made_with

routes = Routes()
_SHOWN = 10


@routes.get("/", ACCOUNT)
def overview(request: Request) -> Response:
    """What serves, health, open requests."""
    services, me = services_of(request), identity_of(request)
    if not me.roles & MEMBER:
        return page(request, "no_role")
    sight = Sight(services.shop)
    waiting = sight.open()
    return page(
        request,
        "overview",
        sight=sight,
        canaries=[shown(sight, canary) for canary in sight.canaries],
        made_with=made_with,
        histories={alias: services.shop.history(alias)[-1] for alias in sight.aliases},
        waiting=waiting[:_SHOWN],
        waiting_count=len(waiting),
        jobs=[job for job in services.jobs.newest(_SHOWN) if not job.over],
        recent=list(reversed(services.shop.archive.log(_SHOWN))),
        free=shutil.disk_usage(services.shop.folder).free,
    )
