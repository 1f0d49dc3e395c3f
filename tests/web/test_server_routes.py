"""Every route for every kind of visitor: only who is named where it is declared gets past its guard."""

import re

import pytest
from browsing import HOST, PEOPLE, Browser
from fastapi import APIRouter

from perdure.web.server.access import ANYBODY, Access, Identity
from perdure.web.server.app import check_guarded, guarded_routes
from perdure.web.server.routing import Routes
from perdure.web.server.tokens import SCOPES

# What somebody may do, said once more and apart from the code: path pattern to the people who may.
ALL = set(PEOPLE)
OPEN = {"GET /static/{name}", "GET /health", "GET /sign-in", "POST /sign-in", "GET /setup", "POST /setup"}
OPEN |= {"GET /join", "POST /join", "POST /language", "GET /oidc/callback", "POST /oidc/sign-in", "POST /oidc/join"}
OWN = {"GET /", "POST /sign-out", "GET /account", "GET /api/v1/me", "POST /oidc/confirm"}
ONLY = {
    "GET /request": {"asker"}, "POST /request": {"asker"}, "POST /changes": {"asker"}, "POST /jobs": {"asker"},
    "POST /versions/{ref}/approve": {"agreer"}, "POST /versions/{ref}/reject": {"agreer"},
    "POST /emergencies": {"agreer"},
    "POST /lineage": {"asker"}, "POST /versions/{ref}/canary": {"runner"},
    "POST /versions/{ref}/promote": {"runner"}, "POST /aliases": {"runner"},
    "POST /versions/{ref}/break-glass": {"runner"},
    "POST /versions/{ref}/ask": {"asker", "agreer", "runner"}, "GET /answers": {"asker", "agreer", "runner"},
    "POST /versions/{ref}/measure": {"asker", "agreer", "runner"},
    "POST /ledger/verify": {"checker", "chief"}, "GET /ledger/export": {"checker", "chief"},
    "GET /members": {"chief"}, "POST /members": {"chief"}, "GET /metrics": {"checker", "runner"},
}  # fmt: skip
# What a program may do with which scope, if its owner's roles allow; whatever is not here no program may.
PROGRAMS = {
    "POST /changes": "request", "GET /request": "request", "POST /request": "request", "POST /jobs": "request",
    "POST /versions/{ref}/ask": "request", "GET /answers": "request", "POST /versions/{ref}/measure": "request",
    "POST /lineage": "request", "POST /versions/{ref}/canary": "operate",
    "POST /versions/{ref}/promote": "operate", "POST /aliases": "operate",
    "POST /versions/{ref}/comment": "", "POST /versions/{ref}/approve": "", "POST /versions/{ref}/reject": "",
    "POST /versions/{ref}/break-glass": "", "POST /emergencies": "", "GET /members": "", "POST /members": "",
    "GET /metrics": "metrics", "POST /kpis": "kpis",
    "POST /account": "", "GET /account": "", "POST /sign-out": "", "GET /": "",
    "POST /oidc": "",
}  # fmt: skip


def named(table, route):
    """The entry of a table for a route: of the longest pattern with which it begins."""
    plain = route.replace("/api/v1", "") if route != "GET /api/v1/me" else route
    found = [key for key in table if plain == key or plain.startswith(f"{key}/")]
    return max(found, key=len, default=None)


def people_of(route):
    """The people who may use a route, by the tables above."""
    if route in OPEN:
        return None
    if route in OWN or route.startswith("POST /account"):
        return ALL | {"nobody"}
    key = named(ONLY, route)
    return ONLY[key] if key else ALL


def scope_of(route):
    """The scope with which a program may use it; empty where none may."""
    key = named(PROGRAMS, route)
    return PROGRAMS[key] if key else "read"


def every(app):
    """Each route as (method and path pattern, method, an address that fits)."""
    for route in guarded_routes(app):
        for method in route.methods:
            path = route.path.replace("{ref}", "v1").replace("{alias}", "staging").replace("{job}", "0" * 32)
            path = path.replace("{name}", "server.css").replace("{sequence}", "1").replace("{token}", "00")
            yield f"{method} {route.path}", method, re.sub(r"\{\w+\}", "0" * 64, path)


def denied(answer):
    """Whether the guard refused: to sign in first, or by a role or scope."""
    if answer.status_code == 303:
        return answer.headers["location"].startswith("/sign-in")
    return answer.status_code in (401, 403)


def ask(browser, method, path):
    if method == "GET":
        return browser.get(path)
    return browser.send(path) if path.startswith("/api/") else browser.post(path)


def test_every_route_for_every_person(served):
    strangers = [Browser(served)]
    browsers = {name: Browser(served, name) for name in (*PEOPLE, "nobody")}
    wrong, seen = [], 0
    for route, method, path in every(served.app):
        if route in ("POST /sign-out", "POST /account/sign-out-everywhere"):
            continue  # these would end the logins that the test goes on with
        allowed = people_of(route)
        for name, browser in [("", strangers[0]), *browsers.items()]:
            if allowed is None:
                continue
            seen += 1
            if denied(ask(browser, method, path)) == (name in allowed):
                wrong.append((route, name))
    assert wrong == []
    assert seen > 400


def test_every_route_for_every_program(served):
    """A token of somebody with every role opens what its scope is for, and nothing else."""
    served.join("all", "requester", "approver", "operator", "auditor", "admin")
    programs = [(scope, served.program("all", scope)) for scope in SCOPES]
    wrong, seen = [], 0
    for route, method, path in every(served.app):
        if people_of(route) is None:
            continue
        for has, program in programs:
            answer = program.get(path) if method == "GET" else program.post(path, json={})
            seen += 1
            if denied(answer) == (scope_of(route) == has):
                wrong.append((route, has, answer.status_code))
    assert wrong == []
    assert seen > 150


def test_with_a_provider_the_same_routes_are_closed(served):
    """What its routes do for each visitor where they are more than an address with nothing behind it."""
    from issuing import serve

    made, _ = serve(served.shop, clock=served.clock)
    wrong = []
    for route, method, path in every(made.app):
        if "/oidc/" not in route and not route.startswith("POST /members"):
            continue
        for name in ("", *PEOPLE, "nobody"):
            answer = ask(Browser(made, name), method, path)
            reached = answer.status_code not in (401, 404) and "takes the role" not in answer.text
            reached = reached and not answer.headers.get("location", "").startswith("/sign-in")
            allowed = people_of(route)
            if reached != (allowed is None or name in allowed):
                wrong.append((route, name, answer.status_code))
    assert wrong == []
    program = made.program("chief", *SCOPES)
    assert {program.post(path).status_code for path in ("/oidc/confirm", "/members/address", "/members/unlink")} == {
        403
    }


def test_a_token_never_has_more_than_its_owner(served):
    wrong = []
    for route in guarded_routes(served.app):
        for name, role in PEOPLE.items():
            for scope in SCOPES:
                program = Identity("token", name, frozenset({role}), frozenset({scope}))
                owner = Identity("login", name, frozenset({role}))
                if program.may(route.access) and not owner.may(route.access):
                    wrong.append((route.path, name, scope))
    assert wrong == []


def test_no_program_reaches_a_decision():
    """By the declarations themselves: what approves, rejects, breaks the glass or governs takes no token."""
    from perdure.web.server import access

    assert access.DECIDE.scope is access.BREAK.scope is access.GOVERN.scope is access.ACCOUNT.scope is None


def test_a_route_that_does_not_say_who_may_use_it_cannot_be_opened(served):
    with pytest.raises(TypeError):
        served.app.router.add_api_route("/open", lambda: {})
    other = APIRouter()
    other.add_api_route("/open", lambda: {})
    served.app.router.routes.extend(other.routes)
    with pytest.raises(TypeError):
        check_guarded(served.app)


def test_the_guard_stands_before_the_body(served):
    """Who may not use a route does not have what they sent read, parsed or explained."""
    answer = Browser(served).client.post("/api/v1/changes/facts", content=b"{", headers={"origin": f"http://{HOST}"})
    assert answer.status_code == 401


def test_a_token_ends_when_revoked_expired_or_its_owner_is_out(served):
    def reads(program):
        return program.get("/api/v1/versions").status_code

    program = served.program("asker", "read")
    assert reads(program) == 200
    served.shop.withdraw("asker", "requester", by="chief")
    assert reads(program) == 403
    served.shop.grant("asker", "auditor", by="chief")
    assert reads(program) == 200
    served.services.accounts.disable("asker", disabled=True)
    assert reads(program) == 401
    program = served.program("checker", "read")
    served.clock.now += 31 * 86400
    assert reads(program) == 401
    program = served.program("checker", "read")
    for token in served.services.tokens.of("checker"):
        served.services.tokens.revoke("checker", token.id)
    assert reads(program) == 401


def test_a_bad_authorization_is_not_a_stranger(calm):
    """With a broken token nothing falls back to the cookie beside it."""
    browser = Browser(calm, "chief")
    for given in ("", "Bearer", "Bearer ", "Basic eDp5", "Bearer a b", "bearer perdure-x", "Token x"):
        assert browser.get("/api/v1/versions", headers={"authorization": given}).status_code == 401, given


def test_a_role_that_is_taken_ends_at_once(served):
    browser = Browser(served, "runner")
    assert browser.get("/versions").status_code == 200
    served.shop.withdraw("runner", "operator", by="chief")
    assert browser.get("/versions").status_code == 403


ODD = [
    "../v1",
    "..%2fv1",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "v1%00",
    "v1;ls",
    "file:///etc/passwd",
    "http://x",
    "V1",
    "v1 ",
]


def test_addresses_take_names_and_nothing_else(calm):
    browser = Browser(calm, "asker")
    paths = ("/versions/{}", "/api/v1/versions/{}/report", "/api/v1/aliases/{}/history", "/jobs/{}")
    for path in (path.format(ref) for path in paths for ref in ODD):
        assert browser.get(path).status_code in (404, 405), path


def test_routes_remember_how_they_were_declared():
    routes = Routes("/x")
    routes.get("/y", ANYBODY)(endpoint := lambda: None)
    assert isinstance(endpoint.access, Access)
