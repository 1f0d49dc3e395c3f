"""Signing in at an identity provider: going there, coming back, and confirming there that it is still them.

Each way begins with a form of this server, with its token and from its origin, and is answered by a page that leads
on. A redirect would not do: browsers hold the whole chain of a form to the policy's `form-action 'self'`. Coming back
is a request from another site, with which browsers send no strict cookie: a page of this server leads on there too.
"""

from collections.abc import Callable
from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from perdure.content import digest_json
from perdure.errors import RefusedError
from perdure.web.server.access import ACCOUNT, ANYBODY, GOVERN, DeniedError, Identity
from perdure.web.server.confirmations import GOVERNING, MAKING_A_TOKEN, approving, breaking
from perdure.web.server.naming import ALIAS
from perdure.web.server.oidc.flows import Flow
from perdure.web.server.oidc.provider import Provider
from perdure.web.server.oidc.settings import CALLBACK
from perdure.web.server.oidc.verifying import Evidence
from perdure.web.server.pages.entering import Code, Name, Password, check_pace, local
from perdure.web.server.rendering import page, set_cookie
from perdure.web.server.routing import NotFoundError, Routes, address_of, confirm, identity_of, services_of
from perdure.web.server.secrets import digest_secret
from perdure.web.server.services import Services
from perdure.web.server.words import N_, _

routes = Routes()
Hash = Annotated[str, Form(pattern="^([0-9a-f]{64})?$")]
# Acts that are about no version, and the page on which they are then done.
_EVERYWHERE = {"govern": (GOVERNING, "/members"), "token": (MAKING_A_TOKEN, "/account")}
_SAID = {
    "access_denied": N_("You, or the sign-in provider, declined. Nobody was signed in."),
    "login_required": N_("The sign-in provider asks you to sign in there first."),
    "temporarily_unavailable": N_("The sign-in provider is not available now. Try again in a minute."),
    "server_error": N_("The sign-in provider had a fault of its own. Try again in a minute."),
}


@routes.post("/oidc/sign-in", ANYBODY)
def sign_in(request: Request, next: Annotated[str, Form(max_length=600)] = "/") -> Response:
    """Go to the provider to sign in."""
    return _leave(request, Flow("enter", login=_login_of(request), goal=local(next)))


@routes.post("/oidc/join", ANYBODY)
def join(request: Request, code: Code, name: Name) -> Response:
    """Go to the provider with the code of an invitation."""
    services = services_of(request)
    _provider(services)
    check_pace(services, request)
    try:
        own, invitation = services.accounts.invited(code.strip(), name)
    except RefusedError:
        services.wrong.note("join", address_of(request))
        raise
    return _leave(request, Flow("join", login=_login_of(request), name=own, key=invitation))


@routes.post("/oidc/confirm", ACCOUNT)
def confirm_anew(
    request: Request,
    act: Annotated[str, Form(pattern="^(approve|break-glass|govern|token)$")],
    version: Hash = "",
    report: Hash = "",
    policy: Hash = "",
    alias: Annotated[str, Form(pattern=ALIAS)] = "production",
) -> Response:
    """Go to the provider to confirm one act, by signing in there anew."""
    services, me = services_of(request), identity_of(request)
    if me.name not in services.identities.linked(_provider(services).settings.issuer):
        words = _("Your account is not linked to an identity at the provider. Give your password instead.")
        raise RefusedError(words)
    if act in _EVERYWHERE:
        wanted, goal = _EVERYWHERE[act]
    else:
        chosen = services.shop.version(version)
        goal = f"/versions/{chosen.name}#decision"
        wanted = approving(chosen.id, report, policy) if act == "approve" else breaking(chosen.id, alias)
    return _leave(
        request, Flow("confirm", login=_login_of(request), name=me.name, key=wanted.key, goal=goal), fresh=True
    )


@routes.get(CALLBACK, ANYBODY)
def come_back(request: Request) -> Response:
    """Coming back from the provider: with a code, or with why not."""
    services = services_of(request)
    provider, given = _provider(services), _given(request)
    returned = services.flows.take(given.get("state", ""), request.cookies.get(services.flows.cookie, ""))
    if returned is None:
        words = _("This way of signing in is over, was used already, or began in another browser. Start again.")
        raise DeniedError(403, words)
    provider.check_sender(given.get("iss"))
    if "code" not in given or "error" in given:
        # What a provider sends along is not shown: anybody can make somebody open an address with words in it.
        said = _SAID.get(given.get("error", ""), N_("The sign-in provider did not sign you in. Start again."))
        raise DeniedError(403, _(said))
    answer = _ARRIVE[returned.flow.purpose](request, returned.flow, provider.identify(given["code"], returned))
    answer.delete_cookie(
        services.flows.cookie, path="/", secure=services.settings.secure, httponly=True, samesite="lax"
    )
    return answer


@routes.post("/members/address", GOVERN)
def expect(
    request: Request,
    name: Name,
    address: Annotated[str, Form(max_length=600)] = "",
    password: Password = "",
) -> Response:
    """Say which address at the provider opens an account at the first sign-in."""
    services, me = services_of(request), identity_of(request)
    confirm(request, password, GOVERNING)
    services.identities.expect(name, address)
    action = "address set" if address.strip() else "address removed"
    services.shop.archive.record(action, {"account": name}, actor=me.name)
    return RedirectResponse("/members", status_code=303)


@routes.post("/members/unlink", GOVERN)
def unlink(request: Request, name: Name) -> Response:
    """Have no identity at the provider open an account any more."""
    services, me = services_of(request), identity_of(request)
    if services.identities.unlink(name):
        services.shop.archive.record("identity unlinked", {"account": name}, actor=me.name)
    return RedirectResponse("/members", status_code=303)


def _leave(request: Request, flow: Flow, *, fresh: bool = False) -> Response:
    """A page that leads to the provider, and the cookie without which nobody comes back from there."""
    services = services_of(request)
    provider = _provider(services)
    own = provider.settings.origin
    if services.settings.origin(request.headers.get("host", "").lower()) != own:
        raise RefusedError(
            _("Signing in at the provider begins at {address}; open this page there.").format(address=own)
        )
    started = services.flows.begin(flow)
    words = _("To {provider}").format(provider=provider.settings.name)
    answer = page(request, "going_on", goal=provider.address(started, fresh=fresh), words=words)
    # Lax: the provider is another site, and a strict cookie would not come back from there. It opens nothing alone.
    answer.set_cookie(
        services.flows.cookie,
        started.browser,
        max_age=services.flows.seconds,
        httponly=True,
        secure=services.settings.secure,
        samesite="lax",
        path="/",
    )
    return answer


def _enter(request: Request, flow: Flow, evidence: Evidence) -> Response:
    services = services_of(request)
    name = services.identities.holder(evidence)
    if name is None:
        name = services.identities.link_expected(evidence)
        _note_link(services, evidence, name, "address")
    return _welcome(request, flow, name)


def _join(request: Request, flow: Flow, evidence: Evidence) -> Response:
    services = services_of(request)
    services.identities.link_invited(evidence, flow.name, flow.key)
    _note_link(services, evidence, flow.name, "invitation")
    return _welcome(request, flow, flow.name)


def _confirm(request: Request, flow: Flow, evidence: Evidence) -> Response:
    """Note that it is them; that no login is opened here, and none is needed, keeps the two apart."""
    services = services_of(request)
    if services.identities.holder(evidence) != flow.name:
        raise DeniedError(
            403, _("You signed in at the provider as somebody else, so it is not confirmed that it is you.")
        )
    _check_enabled(services, flow.name)
    services.confirmations.grant(flow.login, flow.key)
    return page(request, "going_on", goal=flow.goal, words=_("Back to what you confirmed"))


_ARRIVE: dict[str, Callable[[Request, Flow, Evidence], Response]] = {
    "enter": _enter,
    "join": _join,
    "confirm": _confirm,
}


def _welcome(request: Request, flow: Flow, name: str) -> Response:
    """A new login in place of the one that the browser had when it left."""
    services = services_of(request)
    language = _check_enabled(services, name)
    services.logins.close_hashed(flow.login)
    secret = services.logins.open(name)
    # The page shows and guards its forms for the login that begins with it.
    request.state.identity = Identity("login", name, services.shop.roles(name), language=language, session=secret)
    answer = page(request, "going_on", goal=flow.goal, words=_("You are signed in: go on"))
    set_cookie(answer, services, secret)
    return answer


def _check_enabled(services: Services, name: str) -> str:
    """The language of an account that may sign in."""
    account = services.accounts.get(name)
    if account is None or account.disabled:
        raise DeniedError(403, _("This account may not sign in. Ask an administrator."))
    return account.language


def _note_link(services: Services, evidence: Evidence, name: str, how: str) -> None:
    """A row of the ledger, which is for ever: with the identity's hash, and no address of a person."""
    identity = digest_json([evidence.issuer, evidence.subject])
    details = {"account": name, "issuer": evidence.issuer, "identity": identity, "how": how}
    services.shop.archive.record("identity linked", details, actor=name)


def _login_of(request: Request) -> str:
    me = identity_of(request)
    return digest_secret(me.session) if me.way == "login" else ""


def _given(request: Request) -> dict[str, str]:
    """What came with the address; nothing at all where a name stands there twice (RFC 6749, 3.1)."""
    pairs = request.query_params.multi_items()
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _provider(services: Services) -> Provider:
    if services.provider is None:
        raise NotFoundError(_("There is nothing at this address."))
    return services.provider
