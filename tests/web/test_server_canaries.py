"""Canaries in the browser: operators start, step and end them; consent rules as everywhere."""

import time

import pytest
from browsing import Browser

from perdure.errors import SettingError
from perdure.web.gateway.traffic import Outcome, Traffic
from perdure.web.server.canaries import shares_of
from perdure.web.server.told import told
from perdure.web.server.words import speaking

START = {"alias": "production", "shares": "10, 40", "minutes": "0", "requests": "20", "success": "20", "failure": "30"}


@pytest.fixture
def approved(served):
    served.shop.approve("v1", "agreer")
    return served


def saw(shop, kind, count):
    traffic = Traffic(shop.folder)
    version = shop.version("v1").id
    traffic.add([Outcome(f"{kind}-{n}", time.time(), "production", version, 1, kind, 1.0) for n in range(count)])
    traffic.close()


def test_a_canary_is_started_watched_stepped_and_finished(approved):
    shop, runner = approved.shop, Browser(approved, "runner")
    assert 'action="/versions/v1/canary"' in runner.get("/versions/v1").text
    assert runner.post("/versions/v1/canary", START).headers["location"] == "/versions/v1#canary"
    (canary,) = shop.canaries()
    assert (canary.weight, canary.plan.weights, canary.plan.hold_requests) == (0.1, (0.1, 0.4), 20)
    assert (canary.plan.hold_seconds, canary.plan.success, canary.plan.failure) == (0, 0.2, 0.3)
    page = runner.get("/versions/v1").text
    assert "v1 answers 10% of the requests to production, v0 the rest" in page and "10% → 40%" in page
    assert "counted no request" in page and 'action="/versions/v1/canary"' not in page
    saw(shop, "answered", 5)
    assert "The plan waits: held for 5 of 20 requests" in runner.get("/").text
    japanese = runner.get("/versions/v1", headers={"accept-language": "ja"}).text
    assert "この割合での応答は20件中5件" in japanese and "productionへのリクエストの10%にv1が" in japanese
    with speaking("ja"):
        for said in ("'x' holds nothing to compare with; a canary needs two versions", "more than 2 times as slow"):
            assert told(said) != said
        assert told("3 of 40 requests failed; not surely fewer than 2.0% yet").startswith("40件中3件が失敗")
    saw(shop, "failed", 40)
    overview = runner.get("/").text
    assert "So far it answered 45 requests; 40 of them failed." in overview and "lets it fall back" in overview
    step = {"share": "40", "number": "1", "reason": "looks good"}
    assert runner.post("/aliases/production/canary/step", step).status_code == 303
    assert shop.canary("production").weight == 0.4
    end = {"how": "promote", "number": "1", "reason": "done"}
    where = runner.post("/aliases/production/canary/end", end).headers["location"]
    assert shop.version("production").name == "v1" and shop.canary("production") is None
    page = runner.get(where.split("#")[0]).text
    assert "share changed" in page and "looks good" in page and "promoted" in page
    assert shop.archive.verify().ok


def test_it_takes_the_consent_that_a_promotion_would(served):
    runner = Browser(served, "runner")
    assert "/canary" not in runner.get("/versions/v1").text
    refused = runner.post("/versions/v1/canary", START)
    assert refused.status_code == 409 and "no valid approval" in refused.text
    assert served.shop.canaries() == []


def test_a_consent_that_is_gone_keeps_it_from_being_promoted(approved):
    shop, runner = approved.shop, Browser(approved, "runner")
    runner.post("/versions/v1/canary", START)
    shop.set_policy(shop.policy_text() + "\n[approval.required]\nproduction = 2\n", actor="chief")
    assert runner.post("/aliases/production/canary/end", {"how": "promote", "number": "1"}).status_code == 409
    assert shop.version("production").name == "v0" and shop.canary("production") is not None
    assert runner.post("/aliases/production/canary/end", {"how": "stop", "number": "1"}).status_code == 303
    assert shop.canary("production") is None and "stopped" in runner.get("/versions/v1").text


def test_only_the_canary_that_was_on_the_page_is_changed(approved):
    shop, runner = approved.shop, Browser(approved, "runner")
    runner.post("/versions/v1/canary", START)
    runner.post("/aliases/production/canary/end", {"how": "fall back", "number": "1"})
    runner.post("/versions/v1/canary", START)
    for path, form in (("step", {"share": "20"}), ("end", {"how": "promote"})):
        assert runner.post(f"/aliases/production/canary/{path}", {**form, "number": "1"}).status_code == 409
    assert shop.canary("production").weight == 0.1


@pytest.mark.parametrize(
    "change",
    [{"shares": "50, 20"}, {"shares": "0"}, {"shares": "x"}, {"success": "40"}, {"failure": "0"}, {"requests": "0"}],
)
def test_a_plan_that_cannot_be_is_refused(approved, change):
    assert Browser(approved, "runner").post("/versions/v1/canary", {**START, **change}).status_code == 422
    assert approved.shop.canaries() == []


def test_shares_are_read_as_people_write_them():
    assert shares_of("5, 20,50") == shares_of(" 5% 20% 50% ") == shares_of("５、２０、５０") == (0.05, 0.2, 0.5)
    for wrong in ("", "100", "5 5", "-1", "nan", "1 2 x", " ".join(map(str, range(1, 40)))):
        with pytest.raises(SettingError):
            shares_of(wrong)


def test_others_see_it_and_cannot_touch_it(approved):
    approved.shop.start_canary("v1", "production", actor="runner")
    for name in ("asker", "agreer", "checker", "chief"):
        browser = Browser(approved, name)
        page = browser.get("/versions/v1").text
        assert "answers 5% of the requests" in page and "/canary/end" not in page
        assert browser.post("/aliases/production/canary/end", {"how": "stop", "number": "1"}).status_code == 403


def test_programs_with_operate_run_canaries(approved):
    program = approved.program("runner", "operate")
    plan = {"weights": [0.1, 0.5], "hold_requests": 5}
    made = program.post("/api/v1/versions/v1/canary", json={"alias": "production", "plan": plan})
    assert made.status_code == 201 and made.json()["weight"] == 0.1, made.text
    stepped = program.post("/api/v1/aliases/production/canary/step", json={"weight": 0.5, "number": 1})
    assert stepped.json()["plan"]["weights"] == [0.1, 0.5] and stepped.json()["steps"][-1]["event"] == "step"
    saw(approved.shop, "answered", 3)
    (found,) = approved.program("runner", "read").get("/api/v1/canaries").json()
    assert (found["candidate"], found["stable"], found["measures"]["requests"]) == ("v1", "v0", 3)
    assert found["next"]["action"] == "continue"
    ended = program.post("/api/v1/aliases/production/canary/end", json={"how": "promote", "number": 1})
    assert ended.json()["running"] is False and approved.shop.version("production").name == "v1"
