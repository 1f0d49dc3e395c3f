"""Coming in and going out: the first account, invitations, signing in; and what anybody may load."""

import re
from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from perdure.errors import PerdureError, RefusedError
from perdure.web.server.access import ACCOUNT, ANYBODY
from perdure.web.server.accounts import NAME_LIMIT, PASSWORD_LIMIT, checked_name
from perdure.web.server.assets import asset
from perdure.web.server.rendering import page, set_cookie, set_language
from perdure.web.server.routing import NotFoundError, Routes, address_of, identity_of, services_of
from perdure.web.server.services import Services
from perdure.web.server.words import _

routes = Routes()
Name = Annotated[str, Form(max_length=4 * NAME_LIMIT)]
Password = Annotated[str, Form(max_length=2 * PASSWORD_LIMIT)]
Code = Annotated[str, Form(max_length=200)]
_LOCAL = re.compile(r"/(?![/\\])[\w./-]{0,500}")


@routes.get("/static/{name}", ANYBODY)
def static(name: str) -> Response:
    """A file that pages load."""
    found = asset(name)
    if found is None:
        raise NotFoundError(_("There is nothing at this address."))
    headers = {"content-encoding": "gzip", "cache-control": "public, max-age=31536000, immutable"}
    return Response(found.packed, media_type=found.kind, headers=headers)


@routes.get("/health", ANYBODY)
def health() -> JSONResponse:
    """That the server answers; nothing about the workspace."""
    return JSONResponse({"ok": True})


@routes.get("/sign-in", ANYBODY)
def sign_in(request: Request, next: str = "/") -> Response:
    """The form to sign in."""
    if services_of(request).accounts.empty():
        return RedirectResponse("/setup", status_code=303)
    if identity_of(request).way == "login":
        return RedirectResponse(local(next), status_code=303)
    return page(request, "sign_in", goal=local(next))


@routes.post("/sign-in", ANYBODY)
def enter(request: Request, name: Name, password: Password, next: Annotated[str, Form()] = "/") -> Response:
    """Sign in: a new login, whatever cookie the browser had."""
    services, address = services_of(request), address_of(request)
    counted = services.wrong.begin(name, address)
    if counted is None:
        words = _("Too many wrong passwords. Wait a quarter of an hour.")
        return page(request, "sign_in", status=429, goal=local(next), trouble=words)
    account = services.accounts.right(name, password)
    if account is None:
        words = _("The name or the password is not right.")
        return page(request, "sign_in", status=403, goal=local(next), trouble=words, name=name)
    services.wrong.forget(name, counted)
    return _welcome(services, request, account.name, local(next))


@routes.post("/sign-out", ACCOUNT)
def leave(request: Request) -> Response:
    """End this login."""
    services = services_of(request)
    services.logins.close(identity_of(request).session)
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(
        services.logins.cookie, path="/", secure=services.settings.secure, httponly=True, samesite="strict"
    )
    return answer


@routes.post("/language", ANYBODY)
def speak(
    request: Request, language: Annotated[str, Form(max_length=8)] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Choose the language of the pages, for this browser and for the account that is signed in."""
    services, me = services_of(request), identity_of(request)
    if me.way == "login":
        services.accounts.speak(me.name, language)
    answer = RedirectResponse(local(next), status_code=303)
    set_language(answer, services, language)
    return answer


@routes.get("/setup", ANYBODY)
def setup(request: Request) -> Response:
    """The form for the first account."""
    if not services_of(request).accounts.empty():
        return RedirectResponse("/sign-in", status_code=303)
    return page(request, "setup", least=services_of(request).settings.password_length)


@routes.post("/setup", ANYBODY)
def set_up(request: Request, code: Code, name: Name, password: Password, again: Password) -> Response:
    """Open the first account; it is an administrator."""
    services = services_of(request)
    try:
        check_pace(services, request)
        _check_again(password, again)
        _check_first(services, name)
        own = services.accounts.set_up(code.strip(), name, password)
    except PerdureError as error:
        services.wrong.note("setup", address_of(request))
        least = services.settings.password_length
        return page(request, "setup", status=422, least=least, trouble=str(error), name=name)
    services.shop.grant(own, "admin", by=own)
    services.shop.archive.record("account opened", {"account": own, "how": "setup code"}, actor=own)
    return _welcome(services, request, own, "/members")


@routes.get("/join", ANYBODY)
def join(request: Request) -> Response:
    """The form for a first or a new password."""
    return page(request, "join", least=services_of(request).settings.password_length)


@routes.post("/join", ANYBODY)
def joined(request: Request, code: Code, name: Name, password: Password, again: Password) -> Response:
    """Set a password with the code of an invitation."""
    services = services_of(request)
    try:
        check_pace(services, request)
        _check_again(password, again)
        own = services.accounts.join(code.strip(), name, password)
    except PerdureError as error:
        services.wrong.note("join", address_of(request))
        least = services.settings.password_length
        return page(request, "join", status=422, least=least, trouble=str(error), name=name)
    services.shop.archive.record("password set", {"account": own, "how": "invitation"}, actor=own)
    return _welcome(services, request, own, "/")


def _welcome(services: Services, request: Request, name: str, goal: str) -> Response:
    """A new login in place of whatever cookie the browser had."""
    old = identity_of(request)
    if old.way == "login":
        services.logins.close(old.session)
    answer = RedirectResponse(goal, status_code=303)
    set_cookie(answer, services, services.logins.open(name))
    return answer


def check_pace(services: Services, request: Request) -> None:
    """Refuse an address from which too many wrong codes came."""
    if services.wrong.must_wait("", address_of(request)):
        raise RefusedError(_("Too many wrong codes. Wait a quarter of an hour."))


def _check_again(password: str, again: str) -> None:
    if password != again:
        raise RefusedError(_("The two passwords are not the same."))


def _check_first(services: Services, name: str) -> None:
    """The first account of a workspace that has members must be one of its administrators."""
    admins = [member for member, roles in services.shop.members().items() if "admin" in roles]
    if admins and checked_name(name) not in admins:
        words = _("The workspace has administrators already. The first account must have the name of one: {names}.")
        raise RefusedError(words.format(names=", ".join(admins)))


def local(goal: str) -> str:
    """An address on this server, whatever was given."""
    return goal if _LOCAL.fullmatch(goal) else "/"
