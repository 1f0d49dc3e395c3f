"""The API: what can be asked for and decided. Nothing here takes a path or an address."""

import json

from fastapi import Request

from perdure.requests import check_facts
from perdure.web.server import asking, packs, requesting, uploads
from perdure.web.server.access import ASK, AUDIT, CHANGE, COMMENT, COMPARE, DECIDE, ENTER_FILE, MEASURE, RELEASE, UPLOAD
from perdure.web.server.api import shapes
from perdure.web.server.api.reading import canary_shown, kpis_shown
from perdure.web.server.api.shapes import JobShown
from perdure.web.server.confirmations import approving
from perdure.web.server.jobs import Job
from perdure.web.server.naming import Alias, Fact, JobId, Ref
from perdure.web.server.pages import requesting as pages
from perdure.web.server.routing import Routes, confirm, identity_of, services_of
from perdure.web.server.seeing import Sight

routes = Routes("/api/v1", "act")
_TASK_FILE = "task.jsonl"


@routes.post("/changes/facts", UPLOAD, status_code=202)
def teach(request: Request, given: shapes.FactsGiven) -> JobShown:
    """Ask for facts to be taught: a candidate, made and measured by the worker."""
    facts = check_facts(given.facts).facts
    services, me = services_of(request), identity_of(request)
    return _told(requesting.request_facts(services, facts, given.how, me.name))


@routes.post("/changes/task", UPLOAD, status_code=202)
def tune(request: Request, given: shapes.TaskGiven) -> JobShown:
    """Ask for a task to be learnt."""
    services, me = services_of(request), identity_of(request)
    data = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in given.rows).encode()
    task = uploads.uploaded_task(services.shop, _TASK_FILE, data, given.name)
    return _told(requesting.request_task(services, task, _TASK_FILE, data, given.how, me.name))


@routes.post("/jobs/{job}/stop", CHANGE, status_code=204)
def stop(request: Request, job: JobId) -> None:
    """Stop a request of one's own."""
    pages.stop(request, job)


@routes.post("/kpis", ENTER_FILE, status_code=201)
def enter_kpis(request: Request, given: shapes.KpisGiven) -> list[shapes.KpiShown]:
    """Enter figures of KPIs: all of them, or none, with everything named that is wrong."""
    shop = services_of(request).shop
    rows = [row.model_dump(exclude_none=True) for row in given.rows]
    return kpis_shown(Sight(shop), shop.enter_kpis(rows, actor=identity_of(request).name))


@routes.post("/lineage/{fact}/remove", CHANGE, status_code=202)
def remove(request: Request, fact: Fact, given: shapes.Removal) -> JobShown:
    """Ask for a version without one fact: a candidate, made and measured by the worker."""
    services, me = services_of(request), identity_of(request)
    return _told(requesting.request_removal(services, fact, given.on, given.note, me.name))


@routes.post("/versions/{ref}/evidence", COMPARE, status_code=202)
def ask_for_evidence(request: Request, ref: Ref) -> JobShown:
    """Ask for the evidence of a version; when the request is done, it is at `/jobs/{job}/evidence`."""
    services = services_of(request)
    return _told(packs.request_pack(services, services.shop.version(ref), identity_of(request).name))


@routes.post("/versions/{ref}/measure", MEASURE, status_code=202)
def measure(request: Request, ref: Ref) -> JobShown:
    """Ask for a version to be measured."""
    services = services_of(request)
    return _told(asking.measure(services, services.shop.version(ref), identity_of(request).name))


@routes.post("/versions/{ref}/ask", ASK, status_code=202)
def ask(request: Request, ref: Ref, given: shapes.Question) -> JobShown:
    """Ask a version, and others beside it, the same thing; the answers come with the request's result."""
    refs, who = [*given.beside, ref], identity_of(request).name
    return _told(
        asking.ask(services_of(request), refs, given.prompt, chat=given.chat, tokens=given.tokens, requester=who)
    )


@routes.post("/compare", COMPARE, status_code=202)
def compare(request: Request, given: shapes.Pair) -> JobShown | None:
    """Ask what differs between two versions; null where that is known already, at `/difference`."""
    services = services_of(request)
    first, second = services.shop.version(given.first), services.shop.version(given.second)
    job = asking.compare(services, first, second, requester=identity_of(request).name)
    return None if job is None else _told(job)


@routes.post("/versions/{ref}/comment", COMMENT, status_code=204)
def comment(request: Request, ref: Ref, given: shapes.Words) -> None:
    """Write something about a version."""
    services_of(request).shop.comment(ref, identity_of(request).name, given.text)


@routes.post("/versions/{ref}/approve", DECIDE, status_code=204)
def approve(request: Request, ref: Ref, given: shapes.Approval) -> None:
    """Consent to a version, over the report and the policy that were seen."""
    shop = services_of(request).shop
    version = shop.version(ref)
    confirm(request, given.password, approving(version.id, given.report, given.policy))
    shop.approve(version, identity_of(request).name, given.comment, report=given.report, policy=given.policy)


@routes.post("/versions/{ref}/reject", DECIDE, status_code=204)
def reject(request: Request, ref: Ref, given: shapes.Words) -> None:
    """Refuse a version."""
    services_of(request).shop.reject(ref, identity_of(request).name, given.text)


@routes.post("/versions/{ref}/promote", RELEASE, status_code=204)
def promote(request: Request, ref: Ref, given: shapes.Promotion) -> None:
    """Let an alias hold a version."""
    shop = services_of(request).shop
    expected = shop.version(given.held) if given.held else "any"
    shop.promote(ref, given.alias, actor=identity_of(request).name, expected=expected)  # type: ignore[arg-type]


@routes.post("/aliases/{alias}/rollback", RELEASE)
def roll_back(request: Request, alias: Alias) -> dict[str, str]:
    """Let an alias hold what it held before, verified first; the version."""
    version = services_of(request).shop.rollback(alias, actor=identity_of(request).name)
    return {"alias": alias, "version": version.name, "id": version.id}


@routes.post("/versions/{ref}/canary", RELEASE, status_code=201)
def start_canary(request: Request, ref: Ref, given: shapes.CanaryStart) -> shapes.CanaryShown:
    """Let a version answer the first share of an alias's requests; it needs the consent that a promotion would."""
    shop = services_of(request).shop
    made = shop.start_canary(ref, given.alias, given.plan, actor=identity_of(request).name)
    return canary_shown(Sight(shop), made)


@routes.post("/aliases/{alias}/canary/step", RELEASE)
def step_canary(request: Request, alias: Alias, given: shapes.CanaryStep) -> shapes.CanaryShown:
    """Give a canary's candidate another share."""
    shop, who = services_of(request).shop, identity_of(request).name
    found = shop.step_canary(alias, given.weight, actor=who, reason=given.reason, number=given.number)
    return canary_shown(Sight(shop), found)


@routes.post("/aliases/{alias}/canary/end", RELEASE)
def end_canary(request: Request, alias: Alias, given: shapes.CanaryEnd) -> shapes.CanaryShown:
    """End a canary: promote its candidate, let it fall back, or stop."""
    shop, who = services_of(request).shop, identity_of(request).name
    found = shop.end_canary(alias, given.how, actor=who, reason=given.reason, number=given.number)
    return canary_shown(Sight(shop), found)


@routes.post("/ledger/verify", AUDIT, status_code=202)
def verify(request: Request) -> JobShown:
    """Ask for the whole workspace to be checked."""
    return _told(asking.verify(services_of(request), identity_of(request).name))


def _told(job: Job) -> JobShown:
    return JobShown.model_validate(job)
