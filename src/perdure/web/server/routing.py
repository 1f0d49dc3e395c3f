"""Routes that are closed unless their declaration opens them, and the check that each request passes."""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from perdure.errors import PerdureError
from perdure.web.server.access import Access, DeniedError, Identity
from perdure.web.server.confirmations import Act
from perdure.web.server.secrets import digest_secret, form_token, same
from perdure.web.server.services import Services
from perdure.web.server.shield import SAFE
from perdure.web.server.words import _, choose, speaking

API = "/api/"
FIELD, HEADER = "form_token", "x-form-token"
LANGUAGE = "perdure_language"
_BEARER = re.compile(r"Bearer +([A-Za-z0-9_.~+/=-]{1,200})", re.IGNORECASE)
F = TypeVar("F", bound=Callable[..., Any])


class Fault(BaseModel):
    """Why a request was not carried out."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="The kind of error")
    message: str = Field(description="What was wrong, what is allowed, what to do")
    problems: list[str] = Field(description="Each of several faults")


_FAULTS: dict[int | str, dict[str, Any]] = {
    401: {"model": Fault, "description": "No token, or one that is unknown, revoked or expired"},
    403: {"model": Fault, "description": "The account or the token may not do this"},
    404: {"model": Fault, "description": "There is nothing of that name"},
    409: {"model": Fault, "description": "The workspace refuses it as it stands now"},
    422: {"model": Fault, "description": "The request is not well formed"},
    **{
        status: {"description": words, "content": {"text/plain": {"schema": {"type": "string"}}}}
        for status, words in ((400, "The head is not well formed"), (413, "Too large"))
    },
    429: {
        "model": Fault,
        "description": "Too many requests, or wrong passwords",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
}


class GuardedRoute(APIRoute):
    """A route that looks at who asks before it reads what is asked."""

    access: Access

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request: the guard first."""
        answer = super().get_route_handler()
        access = getattr(self.endpoint, "access", None)
        if not isinstance(access, Access):
            raise TypeError(f"{self.path} does not say who may use it")
        self.access = access

        async def guarded(request: Request) -> Response:
            services: Services = request.app.state.services
            identity = await run_in_threadpool(identify, services, request)
            request.state.identity = identity
            with speaking(language_of(request)):
                await check(services, identity, access, request)
                return await answer(request)

        return guarded


@dataclass
class Routes:
    """Routes of one file, each declared together with who may use it.

    Attributes:
        prefix: What all addresses begin with.
        tag: Under which heading the API's description lists them; empty for pages, which it does not list.
    """

    prefix: str = ""
    tag: str = ""
    _declared: list[tuple[str, str, Callable[..., Any], dict[str, Any]]] = field(default_factory=list)

    def get(self, path: str, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a route that changes nothing."""
        return self._declare("GET", path, access, options)

    def post(self, path: str, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a route that changes something."""
        return self._declare("POST", path, access, options)

    def _declare(self, method: str, path: str, access: Access, options: dict[str, Any]) -> Callable[[F], F]:
        def put(endpoint: F) -> F:
            endpoint.access = access  # type: ignore[attr-defined]
            self._declared.append((method, path, endpoint, options))
            return endpoint

        return put

    def add_to(self, app: FastAPI) -> None:
        """Open the routes in an application."""
        shown: dict[str, Any] = {"tags": [self.tag]} if self.tag else {"include_in_schema": False}
        for method, path, endpoint, options in self._declared:
            told = {"responses": {**_FAULTS, **options.get("responses", {})}} if self.tag else {}
            app.router.add_api_route(self.prefix + path, endpoint, methods=[method], **{**shown, **options, **told})


def language_of(request: Request) -> str:
    """The language to answer in: the account's choice, else this browser's, else what the browser asks for."""
    identity: Identity = getattr(request.state, "identity", Identity())
    wished = identity.language or request.cookies.get(LANGUAGE, "")
    return choose(wished, request.headers.get("accept-language", ""))


def identify(services: Services, request: Request) -> Identity:
    """Who makes a request: a program by its token, a person by their login, or a stranger."""
    given = request.headers.get("authorization")
    if given is not None:
        return _program(services, given)
    session = request.cookies.get(services.logins.cookie, "")
    name = services.logins.holder(session) if session else None
    if name is None:
        return Identity(session=request.cookies.get(services.logins.visit_cookie, ""))
    account = services.accounts.get(name)
    language = account.language if account else ""
    return Identity("login", name, services.shop.roles(name), language=language, session=session)


def _program(services: Services, given: str) -> Identity:
    found = _BEARER.fullmatch(given)
    token = services.tokens.holder(found.group(1)) if found else None
    if token is None:
        raise DeniedError(401, _("The token is unknown, revoked or expired."))
    return Identity("token", token.name, services.shop.roles(token.name), token.scopes)


async def check(services: Services, identity: Identity, access: Access, request: Request) -> None:
    """Refuse a request that may not use its route, or that another site may have sent.

    Raises:
        DeniedError: It is refused; the message says why.
    """
    lacks = identity.lacks(access)
    if lacks:
        raise DeniedError(401 if identity.way == "stranger" else 403, lacks)
    if request.method in SAFE or identity.way == "token":
        return
    _check_origin(services, request)
    given = request.headers.get(HEADER) or await _form_field(request)
    if not identity.session or not same(given, form_token(identity.session)):
        raise DeniedError(403, _("The form is no longer valid, for example since you signed in again. Load it anew."))


def _check_origin(services: Services, request: Request) -> None:
    """A browser says from where a form was sent; that must be a page of this server."""
    own = services.settings.origin(request.headers.get("host", "").lower())
    origin = request.headers.get("origin")
    if origin is None:
        referer = request.headers.get("referer", "")
        origin = own if referer.startswith(own + "/") else referer
    if origin.lower() != own or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise DeniedError(403, _("The request did not come from a page of this server."))


async def _form_field(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return ""
    form = await request.form(max_files=1, max_fields=20_000)
    value = form.get(FIELD, "")
    return "" if isinstance(value, UploadFile) else str(value)


def services_of(request: Request) -> Services:
    """The services of the server that got a request."""
    found: Services = request.app.state.services
    return found


def identity_of(request: Request) -> Identity:
    """Who makes a request, as the guard found."""
    found: Identity = request.state.identity
    return found


def address_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client else "unknown"


def confirm(request: Request, password: str, act: Act | None = None) -> None:
    """Check that it is who is signed in: by the password, or by a confirmation at the provider, which is used up.

    Args:
        request: What they ask for.
        password: What they typed; empty where they confirmed at the provider.
        act: What a confirmation must be for; None where a password alone will do.

    Raises:
        DeniedError: It is not confirmed, or too many wrong passwords were given.
    """
    services, me, address = services_of(request), identity_of(request), address_of(request)
    name = me.name
    if me.way != "login":
        raise DeniedError(403, _("A person must sign in for this."))
    if not password and act is not None and services.confirmations.use(digest_secret(me.session), act):
        return
    if not password:
        words = _("Give your password once more, or confirm at the sign-in provider that it is you.")
        raise DeniedError(403, words if services.provider else _("Give your password once more."))
    counted = services.wrong.begin(name, address)
    if counted is None:
        raise DeniedError(429, _("Too many wrong passwords. Wait a quarter of an hour."))
    if services.accounts.right(name, password) is None:
        raise DeniedError(403, _("The password is not right."))
    services.wrong.forget(name, counted)


class NotFoundError(PerdureError):
    """There is nothing at this address."""
