"""One's own account: language, password, tokens, logins."""

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from perdure.errors import PerdureError, RefusedError
from perdure.web.server import tokens
from perdure.web.server.access import ACCOUNT
from perdure.web.server.confirmations import MAKING_A_TOKEN
from perdure.web.server.pages.entering import Password
from perdure.web.server.proving import proof
from perdure.web.server.rendering import page, set_cookie, set_language
from perdure.web.server.routing import Routes, confirm, identity_of, services_of
from perdure.web.server.words import _

routes = Routes("/account")


@routes.get("", ACCOUNT)
def account(request: Request) -> Response:
    """One's own account."""
    return _account(request)


@routes.post("/language", ACCOUNT)
def speak(request: Request, language: Annotated[str, Form(max_length=8)] = "") -> Response:
    """Choose the language of the pages."""
    services_of(request).accounts.speak(identity_of(request).name, language)
    answer = RedirectResponse("/account", status_code=303)
    set_language(answer, services_of(request), language)
    return answer


@routes.post("/password", ACCOUNT)
def change(request: Request, old: Password, password: Password, again: Password) -> Response:
    """Choose another password; every login ends, and this browser gets a new one."""
    services, name = services_of(request), identity_of(request).name
    try:
        confirm(request, old)
        if password != again:
            raise RefusedError(_("The two passwords are not the same."))
        services.accounts.change_password(name, password)
    except PerdureError as error:
        return _account(request, trouble=str(error), status=422)
    services.shop.archive.record("password set", {"account": name, "how": "changed"}, actor=name)
    answer = RedirectResponse("/account", status_code=303)
    set_cookie(answer, services, services.logins.open(name))
    return answer


@routes.post("/sign-out-everywhere", ACCOUNT)
def leave_everywhere(request: Request) -> Response:
    """End every login of one's own."""
    services_of(request).logins.close_all(identity_of(request).name)
    return RedirectResponse("/sign-in", status_code=303)


@routes.post("/tokens", ACCOUNT)
def make_token(
    request: Request,
    label: Annotated[str, Form(max_length=200)],
    password: Password = "",
    scopes: Annotated[list[str] | None, Form(max_length=10)] = None,
    days: Annotated[int, Form()] = 30,
) -> Response:
    """Make a token; it is shown once."""
    services, name = services_of(request), identity_of(request).name
    try:
        confirm(request, password, MAKING_A_TOKEN)
        secret, token = services.tokens.make(name, label, scopes or [], days)
    except PerdureError as error:
        return _account(request, trouble=str(error), status=422)
    details = {"token": token.id, "label": token.label, "scopes": sorted(token.scopes), "days": days}
    services.shop.archive.record("token made", details, actor=name)
    return _account(request, secret=secret)


@routes.post("/tokens/{token}/revoke", ACCOUNT)
def revoke(request: Request, token: str) -> Response:
    """End a token of one's own."""
    services, name = services_of(request), identity_of(request).name
    services.tokens.revoke(name, token)
    services.shop.archive.record("token revoked", {"token": token[:40]}, actor=name)
    return RedirectResponse("/account", status_code=303)


def _account(request: Request, *, status: int = 200, **context: str) -> Response:
    services, me = services_of(request), identity_of(request)
    return page(
        request,
        "account",
        status=status,
        tokens=services.tokens.of(me.name),
        scopes={scope: _(words) for scope, words in tokens.SCOPES.items()},
        most_days=services.settings.token_days,
        least=services.settings.password_length,
        proof=proof(request, MAKING_A_TOKEN),
        **context,
    )
