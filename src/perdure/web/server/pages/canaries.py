"""Canaries: a candidate answers a share of an alias's requests; operators start, step and end them."""

from typing import Annotated, Literal

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from perdure.web.server.access import RELEASE
from perdure.web.server.canaries import plan_of
from perdure.web.server.naming import Alias, Ref
from perdure.web.server.pages.deciding import OnAlias, Words
from perdure.web.server.routing import Routes, identity_of, services_of

routes = Routes()
Percent = Annotated[float, Form(gt=0, lt=100)]
Number = Annotated[int, Form(ge=1, le=2**53)]
How = Literal["promote", "fall back", "stop"]


@routes.post("/versions/{ref}/canary", RELEASE)
def start(
    request: Request,
    ref: Ref,
    alias: OnAlias,
    shares: Annotated[str, Form(max_length=200)] = "5, 20, 50",
    minutes: Annotated[float, Form(ge=0, le=100_000)] = 10,
    requests: Annotated[int, Form(ge=1, le=10**9)] = 100,
    success: Percent = 2,
    failure: Percent = 5,
) -> Response:
    """Let a version answer the first share; it needs the consent that a promotion would."""
    plan = plan_of(shares, minutes=minutes, requests=requests, success=success, failure=failure)
    services_of(request).shop.start_canary(ref, alias, plan, actor=identity_of(request).name)
    return RedirectResponse(f"/versions/{ref}#canary", status_code=303)


@routes.post("/aliases/{alias}/canary/step", RELEASE)
def step(request: Request, alias: Alias, share: Percent, number: Number, reason: Words = "") -> Response:
    """Give the candidate another share."""
    who = identity_of(request).name
    found = services_of(request).shop.step_canary(alias, share / 100, actor=who, reason=reason, number=number)
    return _back(found.candidate)


@routes.post("/aliases/{alias}/canary/end", RELEASE)
def end(request: Request, alias: Alias, how: Annotated[How, Form()], number: Number, reason: Words = "") -> Response:
    """End a canary: promote its candidate, let it fall back, or stop."""
    who = identity_of(request).name
    found = services_of(request).shop.end_canary(alias, how, actor=who, reason=reason, number=number)
    return _back(found.candidate)


def _back(candidate: str) -> Response:
    return RedirectResponse(f"/versions/{candidate[:12]}#canary", status_code=303)
