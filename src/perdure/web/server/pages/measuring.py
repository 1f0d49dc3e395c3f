"""The metrics, for Prometheus."""

from fastapi import Request, Response

from perdure.web.server.access import SCRAPE
from perdure.web.server.routing import Routes, services_of
from perdure.workspace.metrics import CONTENT_TYPE

routes = Routes()


@routes.get("/metrics", SCRAPE)
def metrics(request: Request) -> Response:
    """What the workspace measures of itself, as text; no model is loaded."""
    return Response(services_of(request).metrics.text(), media_type=CONTENT_TYPE)
