"""What people do to a version: ask it, measure it, comment, approve, reject, promote, roll back, break the glass."""

from datetime import timedelta
from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from perdure.errors import RefusedError
from perdure.web.server import asking
from perdure.web.server.access import ASK, BREAK, COMMENT, DECIDE, MEASURE, RELEASE
from perdure.web.server.confirmations import approving, breaking
from perdure.web.server.naming import ALIAS, Alias, JobId, Ref, Row
from perdure.web.server.pages.entering import Password
from perdure.web.server.rendering import page
from perdure.web.server.routing import Routes, confirm, identity_of, services_of
from perdure.web.server.words import _

routes = Routes()
Words = Annotated[str, Form(max_length=4000)]
Digest = Annotated[str, Form(pattern="^[0-9a-f]{64}$")]
OnAlias = Annotated[str, Form(pattern=ALIAS)]


@routes.post("/versions/{ref}/comment", COMMENT)
def comment(request: Request, ref: Ref, text: Words) -> Response:
    """Write something about a version."""
    services_of(request).shop.comment(ref, identity_of(request).name, text)
    return _back(ref, "comments")


@routes.post("/versions/{ref}/measure", MEASURE)
def measure(request: Request, ref: Ref) -> Response:
    """Ask the worker to measure a version."""
    services = services_of(request)
    job = asking.measure(services, services.shop.version(ref), identity_of(request).name)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


@routes.post("/versions/{ref}/approve", DECIDE)
def approve(
    request: Request, ref: Ref, report: Digest, policy: Digest, password: Password = "", comment: Words = ""
) -> Response:
    """Consent to a version, over the report and the policy that were on the page."""
    shop = services_of(request).shop
    version = shop.version(ref)
    confirm(request, password, approving(version.id, report, policy))
    shop.approve(version, identity_of(request).name, comment, report=report, policy=policy)
    return _back(ref, "decision")


@routes.post("/versions/{ref}/reject", DECIDE)
def reject(request: Request, ref: Ref, reason: Words) -> Response:
    """Refuse a version."""
    services_of(request).shop.reject(ref, identity_of(request).name, reason)
    return _back(ref, "decision")


@routes.post("/versions/{ref}/promote", RELEASE)
def promote(request: Request, ref: Ref, alias: OnAlias, held: Annotated[str, Form(max_length=12)] = "") -> Response:
    """Let an alias hold a version, if it holds what the page said."""
    shop = services_of(request).shop
    expected = shop.version(held) if held else None
    shop.promote(ref, alias, actor=identity_of(request).name, expected=expected)
    return _back(ref, "decision")


@routes.post("/aliases/{alias}/rollback", RELEASE)
def roll_back(request: Request, alias: Alias) -> Response:
    """Let an alias hold what it held before."""
    services_of(request).shop.rollback(alias, actor=identity_of(request).name)
    return RedirectResponse("/", status_code=303)


@routes.post("/versions/{ref}/break-glass", BREAK)
def break_glass(
    request: Request,
    ref: Ref,
    alias: OnAlias,
    reason: Words,
    password: Password = "",
    hours: Annotated[int, Form(ge=1, le=168)] = 24,
) -> Response:
    """Let an alias hold a version without consent: loud, and for a limited time."""
    who, shop = identity_of(request).name, services_of(request).shop
    version = shop.version(ref)
    confirm(request, password, breaking(version.id, alias))
    shop.break_glass(version, alias, who, reason, timedelta(hours=hours))
    return RedirectResponse("/", status_code=303)


@routes.post("/emergencies/{sequence}/review", DECIDE)
def review(request: Request, sequence: Row, comment: Words) -> Response:
    """Note what was found about an emergency."""
    services_of(request).shop.review(sequence, identity_of(request).name, comment)
    return RedirectResponse("/", status_code=303)


@routes.post("/versions/{ref}/ask", ASK)
def ask(
    request: Request,
    ref: Ref,
    prompt: Words,
    beside: Annotated[list[str] | None, Form(max_length=4)] = None,
    chat: Annotated[bool, Form()] = False,
) -> Response:
    """Ask a version, and others beside it, the same thing."""
    services, who = services_of(request), identity_of(request).name
    job = asking.ask(services, [*(beside or []), ref], prompt, chat=chat, tokens=64, requester=who)
    if request.headers.get("hx-request"):
        return page(request, "answer", job=job, ahead=services.jobs.ahead(job))
    return RedirectResponse(f"/answers/{job.id}", status_code=303)


@routes.get("/answers/{job}", ASK)
def answer(request: Request, job: JobId) -> Response:
    """The answers to a question, or how long they still take."""
    services = services_of(request)
    found = services.jobs.get(job)
    if found.kind != "ask" or found.requester != identity_of(request).name:
        raise RefusedError(_("That question was asked by somebody else."))
    template = "answer" if request.headers.get("hx-request") else "answer_page"
    return page(request, template, job=found, ahead=services.jobs.ahead(found))


def _back(ref: str, where: str) -> Response:
    return RedirectResponse(f"/versions/{ref}#{where}", status_code=303)
