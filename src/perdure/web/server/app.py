"""The application: every route with its guard, every error as a page or as JSON, one shield around all."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from perdure.errors import (
    IntegrityError,
    ModelError,
    PerdureError,
    RefusedError,
    RequestError,
    SettingError,
    UnknownNameError,
    WorkspaceError,
)
from perdure.web.server import api, pages
from perdure.web.server.access import DeniedError
from perdure.web.server.oidc.fetching import ProviderError
from perdure.web.server.rendering import page
from perdure.web.server.routing import API, GuardedRoute, NotFoundError, language_of, services_of
from perdure.web.server.services import Services
from perdure.web.server.shield import SAFE, App, Shield
from perdure.web.server.told import told
from perdure.web.server.words import _, speaking
from perdure.workspace.database import DiskError, DiskFullError

_log = logging.getLogger("perdure.server")
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (UnknownNameError, 404),
    (RequestError, 422),
    (SettingError, 422),
    (ProviderError, 502),
    (ModelError, 422),
    (DiskFullError, 507),
    (DiskError, 500),
    (RefusedError, 409),
    (WorkspaceError, 409),
    (IntegrityError, 500),
)
DESCRIPTION = (
    "What the pages show and do, for programs. Authenticate with `Authorization: Bearer TOKEN`; a token is made on "
    "the page of one's account and acts with that account's roles, within its scopes. No token can approve. "
    "Versions are named v3, by an alias, or by the first digits of their id; nothing here takes a path or an address."
)


def create_app(services: Services) -> FastAPI:
    """The application over a workspace; `app.state.shielded` is what a server runs."""
    app = FastAPI(
        title="perdure", version="1", description=DESCRIPTION, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.router.route_class = GuardedRoute
    app.state.services = services
    for routes in (*pages.ALL, *api.ALL):
        routes.add_to(app)
    check_guarded(app)
    app.add_exception_handler(PerdureError, _handled(_failed))
    app.add_exception_handler(RequestValidationError, _handled(_invalid))
    app.add_exception_handler(HTTPException, _handled(_http))
    app.add_exception_handler(ClientDisconnect, _handled(_gone))
    app.add_exception_handler(Exception, _handled(_unexpected))
    large = frozenset(route.path for route in guarded_routes(app) if route.access.upload)
    app.state.shielded = Shield(app, services.settings, services.pace, large)
    return app


def shielded(services: Services) -> App:
    """The application inside its shield."""
    made: App = create_app(services).state.shielded
    return made


def guarded_routes(app: FastAPI) -> list[GuardedRoute]:
    """Every route of an application."""
    return [route for route in app.routes if isinstance(route, GuardedRoute)]


def check_guarded(app: FastAPI) -> None:
    """Refuse an application with a way around the guard.

    Raises:
        TypeError: A route is of another kind.
    """
    for route in app.routes:
        if not isinstance(route, GuardedRoute):
            raise TypeError(f"{getattr(route, 'path', route)} is not guarded")


def _handled(
    answer: Callable[[Request, Any], Awaitable[Response]],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """The handler of an error, which speaks the language of the request."""

    async def handle(request: Request, error: Exception) -> Response:
        with speaking(language_of(request)):
            return await answer(request, error)

    return handle


async def _failed(request: Request, error: PerdureError) -> Response:
    if isinstance(error, DeniedError):
        return _denied(request, error)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    problems = [str(problem) for problem in error.problems[:100]] if isinstance(error, RequestError) else []
    return _answer(request, status, type(error).__name__, str(error), problems)


def _denied(request: Request, error: DeniedError) -> Response:
    from_page = not request.url.path.startswith(API)
    if error.status == 401 and from_page and "authorization" not in request.headers:
        where = "/setup" if services_of(request).accounts.empty() else "/sign-in"
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={"hx-redirect": where})
        if request.method in SAFE and request.url.path != "/":
            where += f"?next={quote(request.url.path)}"
        return RedirectResponse(where, status_code=303)
    return _answer(request, error.status, "DeniedError", str(error), [])


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if any(part["loc"][:1] == ("path",) for part in found):
        return _answer(request, 404, "NotFoundError", _("There is nothing at this address."), [])
    problems = [f"{'.'.join(map(str, part['loc'][1:]))}: {told(part['msg'])}" for part in found[:100]]
    return _answer(request, 422, "RequestError", _("The request is not well formed."), problems)


async def _http(request: Request, error: HTTPException) -> Response:
    words = {404: _("There is nothing at this address."), 405: _("This address does not take that method.")}
    return _answer(request, error.status_code, "HTTPException", words.get(error.status_code, str(error.detail)), [])


async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it; the shield has told why


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    words = _("Something went wrong in the server; its log says what. What the ledger does not show was not changed.")
    return _answer(request, 500, "InternalError", words, [])


def _answer(request: Request, status: int, kind: str, message: str, problems: list[str]) -> Response:
    if request.url.path.startswith(API):
        return JSONResponse({"error": kind, "message": message, "problems": problems}, status_code=status)
    if request.headers.get("hx-request"):
        return page(request, "trouble", status=status, message=message, problems=problems)
    return page(request, "error", status=status, code=status, message=message, problems=problems)
