"""Deciding in the browser and over the API: four eyes, the triple that was seen, release; what is shown is escaped."""

import re
from datetime import datetime, timedelta

import report_sample as sample
from browsing import HOST, PASSWORD, Browser, commit_change, put_report

from perdure.workspace.database import DiskError, DiskFullError

EVIL = "<script>alert(1)</script>"


def seen(served, version="v1"):
    """The digests that a page about a version shows."""
    chosen = served.shop.version(version)
    return {"report": served.shop.archive.report_digest(chosen), "policy": served.shop.policy.digest}


def approve(browser, served, version="v1", **more):
    return browser.post(f"/versions/{version}/approve", {**seen(served, version), "password": PASSWORD, **more})


def test_a_second_person_approves_and_an_operator_releases_and_goes_back(served):
    agreer, runner = Browser(served, "agreer"), Browser(served, "runner")
    assert "12 facts to teach" in agreer.get("/versions/v1").text
    assert approve(agreer, served, comment="fine").status_code == 303
    assert served.shop.version("v1").status == "approved"
    assert runner.post("/versions/v1/promote", {"alias": "production", "held": "v0"}).status_code == 303
    assert served.shop.version("production").name == "v1"
    assert runner.post("/aliases/production/rollback").status_code == 303
    assert served.shop.version("production").name == "v0"
    moves = [(one.kind, one.actor) for one in served.shop.history("production")][1:]
    assert moves == [("promote", "runner"), ("rollback", "runner")]


def test_whoever_asked_cannot_approve_in_any_way(served):
    """The page has no form, and the form, the API and other spellings of the name are refused."""
    served.shop.grant("asker", "approver", by="chief")
    asker = Browser(served, "asker")
    assert "/versions/v1/approve" not in asker.get("/versions/v1").text
    tries = [approve(asker, served)]
    tries += [asker.send("/api/v1/versions/v1/approve", {**seen(served), "password": PASSWORD})]
    tries += [asker.post("/versions/v1/approve", {**seen(served), "password": PASSWORD, "actor": "agreer"})]
    for actor in ("agreer", "ASKER"):
        tries += [asker.send("/api/v1/versions/v1/approve", {**seen(served), "password": PASSWORD, "actor": actor})]
    assert [answer.status_code for answer in tries] == [409, 409, 409, 422, 422]
    assert served.shop.version("v1").status == "candidate"


def test_an_account_cannot_be_doubled_by_spelling(served):
    """A second account under the same name in capitals or full width is the first one."""
    for name in ("ASKER", "ａｓｋｅｒ", " asker "):
        own, _ = served.services.accounts.invite(name)
        assert own == "asker"


def test_approval_takes_the_password_once_more(served):
    agreer = Browser(served, "agreer")
    for password in ("", "wrong", PASSWORD.upper()):
        assert approve(agreer, served, password=password).status_code in (403, 422)
    answer = agreer.send("/api/v1/versions/v1/approve", {**seen(served), "password": "wrong"})
    assert answer.status_code == 403 and answer.json()["error"] == "DeniedError"
    assert served.shop.version("v1").status == "candidate"


def test_wrong_passwords_at_approval_count(served):
    agreer = Browser(served, "agreer")
    for _ in range(served.settings.tries):
        approve(agreer, served, password="wrong")
    assert approve(agreer, served).status_code == 429


def test_no_token_approves_whatever_it_says(served):
    for scope in ("read", "request", "operate"):
        program = served.program("agreer", scope)
        body = {**seen(served), "password": PASSWORD}
        assert program.post("/api/v1/versions/v1/approve", json=body).status_code == 403
        headers = {"origin": f"http://{HOST}"}
        assert program.post("/versions/v1/approve", data=body, headers=headers).status_code == 403
    assert served.shop.version("v1").status == "candidate"


def test_an_approval_is_over_what_was_on_the_page(served):
    agreer, before = Browser(served, "agreer"), seen(served)
    put_report(served.shop, served.shop.version("v1"), sample.full_report(based=True), actor="asker")
    answer = agreer.post("/versions/v1/approve", {**before, "password": PASSWORD})
    assert answer.status_code == 409
    now = seen(served)
    served.shop.set_policy(open_policy(served), actor="chief")
    assert agreer.post("/versions/v1/approve", {**now, "password": PASSWORD}).status_code == 409
    assert approve(agreer, served).status_code == 303


def open_policy(served):
    text = (served.shop.folder / "policy.toml").read_text()
    return text.replace("perplexity_ratio=1000", "perplexity_ratio=999")


def test_an_approval_without_what_was_seen_is_refused(served):
    agreer = Browser(served, "agreer")
    assert agreer.post("/versions/v1/approve", {"password": PASSWORD}).status_code == 422
    body = {"report": "", "policy": "", "password": PASSWORD}
    assert agreer.send("/api/v1/versions/v1/approve", body).status_code == 422
    assert served.shop.version("v1").status == "candidate"


def test_production_without_approval_is_refused(served):
    runner = Browser(served, "runner")
    assert runner.post("/versions/v1/promote", {"alias": "production", "held": "v0"}).status_code == 409
    assert (
        served.program("runner", "operate").post("/api/v1/versions/v1/promote", json={"alias": "production"}).is_error
    )
    assert served.shop.version("production").name == "v0"


def test_a_promotion_over_what_was_not_seen_is_refused(served):
    approve(Browser(served, "agreer"), served)
    runner = Browser(served, "runner")
    assert runner.post("/versions/v1/promote", {"alias": "production", "held": "v1"}).status_code == 409
    assert runner.post("/versions/v1/promote", {"alias": "staging", "held": "v0"}).status_code == 409


def test_breaking_the_glass_is_loud_and_ends_with_a_review_by_another(served):
    served.shop.grant("runner", "approver", by="chief")
    runner, agreer = Browser(served, "runner"), Browser(served, "agreer")
    form = {"alias": "production", "reason": f"shop is down {EVIL}", "hours": "2", "password": PASSWORD}
    assert runner.post("/versions/v1/break-glass", {**form, "password": "wrong"}).status_code == 403
    assert runner.post("/versions/v1/break-glass", form).status_code == 303
    assert served.shop.version("production").name == "v1"
    text = agreer.get("/").text
    assert "The glass was broken" in text and EVIL not in text
    number = served.shop.emergencies()[0].sequence
    assert runner.post(f"/emergencies/{number}/review", {"comment": "fine"}).status_code == 409
    assert agreer.post(f"/emergencies/{number}/review", {"comment": "seen"}).status_code == 303
    assert "The glass was broken" not in agreer.get("/").text
    broken = served.shop.emergencies()[0]
    lasts = datetime.fromisoformat(broken.expires) - datetime.fromisoformat(broken.time)
    assert abs(lasts - timedelta(hours=2)) < timedelta(minutes=1)


def test_a_rejection_keeps_its_reason_and_stops_the_line(served):
    agreer, asker = Browser(served, "agreer"), Browser(served, "asker")
    assert agreer.post("/versions/v1/reject", {"reason": "forgets the returns"}).status_code == 303
    assert "forgets the returns" in asker.get("/versions/v1").text
    fact = {"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch", "on": "v1"}
    answer = asker.post("/request/facts", fact)
    assert answer.status_code in (409, 422) and "rejected" in answer.text


def test_every_stored_word_is_escaped(served):
    """Scripts in requester, fact, recipe, report, comment, reason and ledger come out as text on every page."""
    shop = served.shop
    served.join(f"eve{EVIL}"[:60].replace("/", "|"), "requester")
    version = commit_change(shop, requester=f"eve{EVIL}"[:60].replace("/", "|"), note=EVIL)
    put_report(shop, version, sample.hostile_report())
    shop.comment(version, "agreer", EVIL)
    served.services.jobs.add("facts", {"facts": [{"prompt": EVIL, "target_new": EVIL, "target_true": None}]},
                             requester="asker", title=EVIL)  # fmt: skip
    job = served.services.jobs.add("ask", {"prompt": EVIL, "versions": ["v1"]}, requester="asker", title=EVIL)
    served.services.jobs.note(job.id, answers={"v1": f"{EVIL}\x1b[31m\u202e"}, routes={})
    served.services.jobs.finish(job.id, "done")
    shop.archive.record(EVIL, {EVIL: EVIL}, actor=f"eve{EVIL}")
    browser = Browser(served, "asker")
    listed = served.services.jobs.newest()[0].id
    paths = [
        "/",
        "/versions",
        "/versions/v2",
        "/ledger",
        f"/ledger?q={EVIL}",
        f"/lineage?q={EVIL}",
        "/monitor",
        "/jobs",
    ]
    paths += [
        f"/jobs/{listed}",
        f"/answers/{job.id}",
        "/lineage?q=Lyon",
        "/versions/diff?first=v0&second=v2",
        "/request",
    ]
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.text)
        scripts = re.findall(r"<script[^>]*>", answer.text)
        assert all("src=" in tag or "application/json" in tag for tag in scripts), path
        assert EVIL not in answer.text, path
        assert "onerror=alert" not in re.sub(r'"[^"]*"|&quot;|&#34;', "", answer.text) or "&lt;img" in answer.text
        assert "\u202e" not in answer.text and "\x1b" not in answer.text, path


def test_an_answer_is_seen_by_who_asked_alone(served):
    job = served.services.jobs.add("ask", {"prompt": "x", "versions": ["v1"]}, requester="asker", title="x")
    other = Browser(served, "agreer")
    for path in (f"/answers/{job.id}", f"/jobs/{job.id}", f"/api/v1/jobs/{job.id}"):
        assert other.get(path).status_code == 409
        assert "queued" not in other.get(path).text


def test_the_report_is_downloaded_and_not_shown_in_place(served):
    answer = Browser(served, "asker").get("/versions/v1/report")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_a_comment_is_signed_by_who_signed_in(served):
    Browser(served, "asker").post("/versions/v1/comment", {"text": "why?", "actor": "chief"})
    assert [(one.actor, one.text) for one in served.shop.comments("v1")] == [("asker", "why?")]


def test_an_administrator_gives_roles_with_their_password(served):
    chief = Browser(served, "chief")
    form = {"name": "nobody", "roles": ["requester", "auditor"]}
    assert chief.post("/members/roles", {**form, "password": "wrong"}).status_code == 422
    assert served.shop.roles("nobody") == frozenset()
    assert chief.post("/members/roles", {**form, "password": PASSWORD}).status_code == 303
    assert served.shop.roles("nobody") == {"requester", "auditor"}
    # The last administrator stays one.
    assert chief.post("/members/roles", {"name": "chief", "password": PASSWORD}).status_code == 422
    answer = chief.post("/members/invite", {"name": "late", "password": PASSWORD})
    code = re.search(r"<code>(invite-[\w-]+)</code>", answer.text).group(1)
    assert code not in chief.get("/members").text
    chief.post("/members/disable", {"name": "asker", "disabled": "true"})
    assert Browser(served).post("/sign-in", {"name": "asker", "password": PASSWORD}).status_code == 403
    actions = [entry.action for entry in served.shop.archive.log(8)]
    assert {"grant", "invitation", "account disabled"} <= set(actions)


def test_a_failing_disk_is_the_servers_fault(served, monkeypatch):
    def full(*_, **__):
        raise kind("no space is left")

    monkeypatch.setattr(served.shop.archive, "comment", full)
    for kind, status in ((DiskFullError, 507), (DiskError, 500)):
        answer = Browser(served, "asker").send("/api/v1/versions/v1/comment", {"text": "why"})
        assert (answer.status_code, answer.json()["error"]) == (status, kind.__name__)
