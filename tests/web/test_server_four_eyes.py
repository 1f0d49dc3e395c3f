"""Every way around four eyes that somebody may try at the pages and the API, counted: none approves, none releases."""

import itertools

import pytest
from browsing import HOST, PASSWORD, Browser

OTHERS = ("asker", "runner", "checker", "chief", "nobody", "")
EXTRA = ({}, {"actor": "agreer"}, {"approver": "agreer"}, {"requester": "someone"}, {"name": "agreer"})
FIELDS = ({}, {"report": "0" * 64}, {"policy": "0" * 64}, {"report": ""}, {"policy": "x"})


@pytest.fixture
def tried(served):
    """The asker may approve too, in the work of others; what an honest approver would send."""
    served.shop.grant("asker", "approver", by="chief")
    shop = served.shop
    seen = {"report": shop.archive.report_digest(shop.version("v1")), "policy": shop.policy.digest}
    return served, {**seen, "password": PASSWORD}


def names_of(shop):
    """What v1 can be called."""
    identifier = shop.version("v1").id
    return ("v1", "latest", identifier, identifier[:12])


def both(browser, ref, form):
    """The answers of the page and of the API."""
    yield browser.post(f"/versions/{ref}/approve", form)
    yield browser.send(f"/api/v1/versions/{ref}/approve", form)


def by_the_asker(served, form):
    asker = Browser(served, "asker")
    for ref, more in itertools.product(names_of(served.shop), EXTRA):
        yield from both(asker, ref, {**form, **more})
    for name in ("Asker", "ASKER", " asker", "ａｓｋｅｒ"):
        again = Browser(served)
        again.post("/sign-in", {"name": name, "password": PASSWORD})
        again.renew("/account" if again.get("/account").status_code == 200 else "/sign-in")
        yield from both(again, "v1", form)


def by_people_without_the_role(served, form):
    for name in OTHERS:
        yield from both(Browser(served, name), "v1", form)


def by_an_approver_who_is_not_sure(served, form):
    """Without their password, with that of nobody, or over something that was not on the page."""
    agreer = Browser(served, "agreer")
    for password in ("", "wrong", PASSWORD.upper()):
        yield from both(agreer, "v1", {**form, "password": password})
    for changed in FIELDS[1:]:
        yield from both(agreer, "v1", {**form, **changed})
    for missing in ("report", "policy", "password"):
        yield from both(agreer, "v1", {name: value for name, value in form.items() if name != missing})


def by_other_sites(served, form):
    agreer = Browser(served, "agreer")
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        yield agreer.post("/versions/v1/approve", form, headers=headers)
        yield agreer.send("/api/v1/versions/v1/approve", form, headers=headers)
    for token in ("", "0" * 64, Browser(served, "asker").token):
        yield agreer.post("/versions/v1/approve", {**form, "form_token": token})
        yield agreer.send("/api/v1/versions/v1/approve", form, headers={"x-form-token": token})


def by_programs(served, form):
    from perdure.web.server.tokens import SCOPES

    for name, scope in itertools.product(("asker", "agreer", "chief"), SCOPES):
        program = served.program(name, scope)
        yield program.post("/api/v1/versions/v1/approve", json=form)
        yield program.post("/versions/v1/approve", data=form, headers={"origin": f"http://{HOST}"})


def by_releasing_without_consent(served, form):
    runner = Browser(served, "runner")
    for ref, alias in itertools.product(names_of(served.shop), ("production",)):
        yield runner.post(f"/versions/{ref}/promote", {"alias": alias, "held": "v0"})
        yield runner.send(f"/api/v1/versions/{ref}/promote", {"alias": alias})
        yield served.program("runner", "operate").post(f"/api/v1/versions/{ref}/promote", json={"alias": alias})


def by_giving_oneself_the_right(served, form):
    """Who is no administrator gives no role; who is one can give themselves any and has asked all the same."""
    for name in ("asker", "agreer", "runner"):
        browser = Browser(served, name)
        yield browser.post("/members/roles", {"name": name, "roles": ["admin", "approver"], "password": PASSWORD})
        yield browser.post("/members/invite", {"name": "friend", "password": PASSWORD})
    served.shop.grant("asker", "admin", by="chief")
    yield from both(Browser(served, "asker"), "v1", form)
    served.shop.withdraw("asker", "admin", by="chief")


WAYS = (
    by_the_asker, by_people_without_the_role, by_an_approver_who_is_not_sure, by_other_sites, by_programs,
    by_releasing_without_consent, by_giving_oneself_the_right,
)  # fmt: skip


def test_every_way_around_four_eyes_is_refused(tried):
    served, form = tried
    counts = {}
    for way in WAYS:
        answers = [(answer.status_code, answer.headers.get("location", "")) for answer in way(served, form)]
        passed = [one for one in answers if one[0] < 400 and not one[1].startswith(("/sign-in", "/setup"))]
        assert passed == [], way.__name__
        assert 500 not in {status for status, _ in answers}
        counts[way.__name__] = len(answers)
        assert served.shop.approvals("v1") == [] and served.shop.version("v1").status == "candidate", way.__name__
        assert served.shop.version("production").name == "v0"
    assert sum(counts.values()) > 130, counts
    assert Browser(served, "agreer").post("/versions/v1/approve", form).status_code == 303  # the honest way is open
