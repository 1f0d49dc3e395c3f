"""The ledger, the policy, the members, what was taught, the monitor."""

import json
from collections.abc import Iterator
from typing import Annotated

from fastapi import Form, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from perdure.content import canonical_json
from perdure.errors import PerdureError
from perdure.governance.explaining import HOW, explain
from perdure.web.charts import Chart
from perdure.web.server import asking
from perdure.web.server.access import AUDIT, GOVERN, SEE
from perdure.web.server.confirmations import GOVERNING
from perdure.web.server.naming import LAST
from perdure.web.server.pages.entering import Password
from perdure.web.server.proving import proof
from perdure.web.server.rendering import page
from perdure.web.server.routing import Routes, confirm, identity_of, services_of
from perdure.web.server.seeing import Sight
from perdure.web.server.watching import curve
from perdure.web.server.words import _
from perdure.workspace.schema import ROLES

routes = Routes()
_PAGE, _PART, _FOUND = 100, 2000, 50
Search = Annotated[str, Query(max_length=200)]
Who = Annotated[str, Form(max_length=256)]


@routes.get("/ledger", SEE)
def ledger(request: Request, q: Search = "", before: Annotated[int, Query(ge=1, le=LAST)] = LAST) -> Response:
    """The ledger, the newest rows first; those with some words."""
    services = services_of(request)
    rows = services.shop.archive.log(_PAGE, before=before, words=q)
    return page(
        request,
        "ledger",
        rows=rows[::-1],
        q=q,
        earlier=rows[0].sequence if len(rows) == _PAGE else None,
        checks=services.jobs.newest(3, kinds=("verify",)),
    )


@routes.post("/ledger/verify", AUDIT)
def verify(request: Request) -> Response:
    """Ask the worker to check the whole workspace."""
    job = asking.verify(services_of(request), identity_of(request).name)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


@routes.get("/ledger/export", AUDIT)
def export(request: Request) -> Response:
    """The whole ledger as JSON lines, as it is hashed."""
    archive = services_of(request).shop.archive

    def lines() -> Iterator[bytes]:
        last = archive.log(1)
        end = last[-1].sequence if last else 0
        for start in range(0, end, _PART):
            rows = archive.log(after=start, before=min(start + _PART, end) + 1)
            yield b"".join(canonical_json(vars(row)).encode() + b"\n" for row in rows)

    headers = {"content-disposition": 'attachment; filename="ledger.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


@routes.get("/policy", SEE)
def policy(request: Request) -> Response:
    """The policy in plain words, its file, and when it changed."""
    shop = services_of(request).shop
    found = shop.policy
    changes = shop.policy_changes()
    return page(
        request,
        "policy",
        policy=found,
        parts=explain(found),
        how=HOW,
        changes=changes[::-1],
        text=json.dumps(found.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False),
    )


@routes.get("/lineage", SEE)
def lineage(request: Request, q: Search = "") -> Response:
    """Facts and tasks that hold some words."""
    found = services_of(request).shop.search(q, limit=_FOUND) if q.strip() else []
    return page(request, "lineage", q=q, found=found, most=_FOUND)


@routes.get("/lineage/{fact}", SEE)
def one(request: Request, fact: str) -> Response:
    """Everything about one fact or task."""
    shop = services_of(request).shop
    found = shop.lineage_of(fact[:64])
    held = [version for name in reversed(found.lives_in) if shop.rejected(version := shop.version(name)) is None]
    return page(request, "fact", found=found, origins=[(version.name, version.name) for version in held])


@routes.get("/monitor", SEE)
def monitor(request: Request) -> Response:
    """What reports say of each version, as curves with the policy's limits."""
    services = services_of(request)
    measures = services.watch.measures(services.shop.policy)
    charts = [Chart(f"chart-{measure.name}", measure.label, measure.label, curve(measure)) for measure in measures]
    return page(request, "monitor", measures=list(zip(measures, charts, strict=True)))


@routes.get("/members", GOVERN)
def members(request: Request) -> Response:
    """Who may do what."""
    return _members(request)


@routes.post("/members/invite", GOVERN)
def invite(request: Request, name: Who, password: Password = "") -> Response:
    """Give somebody an account, or a way to a new password; the code is shown once."""
    services, me = services_of(request), identity_of(request)
    try:
        confirm(request, password, GOVERNING)
        own, code = services.accounts.invite(name)
    except PerdureError as error:
        return _members(request, status=422, trouble=str(error))
    services.shop.archive.record("invitation", {"account": own}, actor=me.name)
    return _members(request, invited=own, code=code)


@routes.post("/members/roles", GOVERN)
def change_roles(
    request: Request, name: Who, password: Password = "", roles: Annotated[list[str] | None, Form(max_length=10)] = None
) -> Response:
    """Give somebody exactly these roles."""
    shop, me = services_of(request).shop, identity_of(request)
    try:
        confirm(request, password, GOVERNING)
        wished, held = set(roles or ()), shop.roles(name)
        for role in sorted(wished - held):
            shop.grant(name, role, by=me.name)
        for role in sorted(held - wished):
            shop.withdraw(name, role, by=me.name)
    except PerdureError as error:
        return _members(request, status=422, trouble=str(error))
    return RedirectResponse("/members", status_code=303)


@routes.post("/members/disable", GOVERN)
def disable(request: Request, name: Who, disabled: Annotated[bool, Form()] = True) -> Response:
    """Forbid somebody to sign in, or allow it again."""
    services, me = services_of(request), identity_of(request)
    services.accounts.disable(name, disabled=disabled)
    action = "account disabled" if disabled else "account enabled"
    services.shop.archive.record(action, {"account": name}, actor=me.name)
    return RedirectResponse("/members", status_code=303)


def _members(request: Request, *, status: int = 200, **context: str) -> Response:
    services = services_of(request)
    accounts = {account.name: account for account in services.accounts.all()}
    held = services.shop.members()
    names = sorted({*accounts, *held}, key=str.casefold)
    rows = [(name, accounts.get(name), held.get(name, frozenset())) for name in names]
    words = {
        "requester": _("asks for changes"),
        "approver": _("approves and rejects"),
        "operator": _("promotes and rolls back"),
        "auditor": _("verifies and exports the ledger"),
        "admin": _("administers accounts, roles and the policy"),
    }
    sight = Sight(services.shop)
    return page(
        request,
        "members",
        status=status,
        rows=rows,
        roles={role: words[role] for role in ROLES},
        sight=sight,
        proof=proof(request, GOVERNING),
        expected=services.identities.expected(),
        linked=services.identities.linked(services.settings.oidc.issuer) if services.settings.oidc else frozenset(),
        **context,
    )
