"""Confirming at the provider that it is still them: anew, for one act, once, in one login; four eyes all the same."""

import pytest
from browsing import PASSWORD, Browser, commit_change, put_report
from issuing import Issuer, Traveller, link, serve
from joserfc.jwk import RSAKey

KEY = RSAKey.generate_key(2048, {"kid": "first"})
LOGIN = "perdure-plain-http"


@pytest.fixture
def room(served):
    """A server with a provider; an approver who signs in there, and has no password."""
    made, issuer = serve(served.shop, Issuer(served.clock, key=KEY), served.clock)
    enter(made, issuer, "agreer", "subject-1")
    made.services.store.write("UPDATE users SET password = NULL WHERE name = 'agreer'")
    person = Traveller(made, issuer)
    assert person.travel().status_code == 200 and person.who() == "agreer"
    return made, issuer, person


def enter(made, issuer, name, subject):
    """Link somebody, and their browser."""
    made.services.identities.expect(name, f"{name}@example.com")
    issuer.user, issuer.email = subject, f"{name}@example.com"
    person = Traveller(made, issuer)
    assert person.travel().status_code == 200
    return person


def consent(made, ref="v1"):
    """What an honest page sends: to confirm, and then to approve."""
    shop = made.shop
    version = shop.version(ref)
    seen = {"report": shop.archive.report_digest(version), "policy": shop.policy.digest}
    return {"act": "approve", "version": version.id, **seen}, seen


def test_a_fresh_login_at_the_provider_is_consent_once(room):
    made, issuer, person = room
    confirm, form = consent(made)
    assert person.post("/versions/v1/approve", form).status_code == 403
    _, address = person.leave("/oidc/confirm", confirm)
    assert "prompt=login" in address and "max_age=0" in address
    made.clock.now += 20
    back = person.come_back(issuer.authorize(address)[0])
    assert back.status_code == 200 and link(back) == "/versions/v1#decision"
    assert LOGIN not in back.cookies  # no login is opened by confirming
    assert made.shop.approvals("v1") == []  # and nothing decided
    page = person.get("/versions/v1").text
    assert "You confirmed at the provider" in page and 'id="password"' not in page
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 303
    assert [consent.approval.approver for consent in made.shop.approvals("v1")] == ["agreer"]
    second = commit_change(made.shop, requester="asker", note="2")
    put_report(made.shop, second)
    assert person.post(f"/versions/{second.name}/approve", consent(made, second.name)[1]).status_code == 403


def test_it_is_used_up_even_by_a_consent_that_is_refused(room):
    made, _, person = room
    confirm, form = consent(made)
    made.shop.archive.put_report(made.shop.version("v1"), {"other": "report"}, actor="asker")
    assert person.travel("/oidc/confirm", confirm).status_code == 200
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code >= 400
    assert person.post("/versions/v1/approve", form).status_code == 403
    assert made.shop.approvals("v1") == []


@pytest.mark.parametrize("age", [None, 45, 3600, -120, "now", True, "0"])
def test_who_was_signed_in_before_is_not_believed(room, age):
    """`auth_time` is missing, older than the question beyond the leeway of clocks, to come, or no number."""
    made, issuer, person = room
    confirm, form = consent(made)
    issuer.claims = {"auth_time": made.clock() - age if isinstance(age, int) and age is not True else age}
    answer = person.travel("/oidc/confirm", confirm)
    assert answer.status_code == 403
    assert "anew" in answer.text or isinstance(age, str)
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 403
    assert made.shop.approvals("v1") == []


def test_it_counts_for_the_triple_alone(room):
    made, _, person = room
    confirm, form = consent(made)
    for changed in ("report", "policy"):
        assert person.travel("/oidc/confirm", {**confirm, changed: "0" * 64}).status_code == 200
        person.renew("/account")
        assert person.post("/versions/v1/approve", form).status_code == 403
    other = commit_change(made.shop, requester="asker", note="2")
    put_report(made.shop, other)
    assert person.travel("/oidc/confirm", consent(made, other.name)[0]).status_code == 200
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 403
    for act in ("token", "govern", "break-glass"):
        assert person.travel("/oidc/confirm", {**confirm, "act": act}).status_code == 200
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 403
    assert made.shop.approvals("v1") == []


def test_it_ends_after_minutes(room):
    made, _, person = room
    confirm, form = consent(made)
    person.travel("/oidc/confirm", confirm)
    made.clock.now += made.settings.oidc.confirm_seconds + 1
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 403


def test_it_counts_in_the_login_that_asked(room):
    made, issuer, person = room
    confirm, form = consent(made)
    person.travel("/oidc/confirm", confirm)
    other = Traveller(made, issuer)
    other.travel()
    other.renew("/account")
    assert other.who() == "agreer" and other.post("/versions/v1/approve", form).status_code == 403
    person.post("/sign-out")
    person.travel()
    person.renew("/account")
    assert person.who() == "agreer" and person.post("/versions/v1/approve", form).status_code == 403


def test_somebody_else_at_the_provider_confirms_nothing(room):
    """Two identities never stand for one another: not somebody linked to another account, nor somebody unknown."""
    made, issuer, person = room
    confirm, form = consent(made)
    enter(made, issuer, "chief", "subject-2")
    for subject in ("subject-2", "subject-3"):
        issuer.user = subject
        answer = person.travel("/oidc/confirm", confirm)
        assert answer.status_code == 403 and "somebody else" in answer.text
        person.renew("/account")
        assert person.who() == "agreer" and person.post("/versions/v1/approve", form).status_code == 403


def test_who_asked_cannot_approve_however_they_sign_in(room):
    made, issuer, _ = room
    made.shop.grant("asker", "approver", by="chief")
    asker = enter(made, issuer, "asker", "subject-5")
    confirm, form = consent(made)
    assert asker.travel("/oidc/confirm", confirm).status_code == 200
    asker.renew("/account")
    assert asker.who() == "asker" and asker.post("/versions/v1/approve", form).status_code == 409
    assert made.shop.approvals("v1") == []


def test_signing_in_is_no_confirmation_and_a_confirmation_no_login(room):
    made, issuer, person = room
    confirm, form = consent(made)
    person.travel()
    person.renew("/account")
    assert person.post("/versions/v1/approve", form).status_code == 403
    _, address = person.leave("/oidc/confirm", confirm)
    person.cut()
    person.come_back(issuer.authorize(address)[0])
    assert person.who() == ""


def test_who_is_disabled_or_unlinked_meanwhile_confirms_nothing(room):
    made, issuer, person = room
    confirm, _ = consent(made)
    _, address = person.leave("/oidc/confirm", confirm)
    made.services.accounts.disable("agreer", disabled=True)
    assert person.come_back(issuer.authorize(address)[0]).status_code == 403
    made.services.accounts.disable("agreer", disabled=False)
    person.travel()
    _, address = person.leave("/oidc/confirm", confirm)
    made.services.identities.unlink("agreer")
    assert person.come_back(issuer.authorize(address)[0]).status_code == 403


def test_without_an_identity_there_is_the_password(room):
    made, _, _ = room
    runner = Browser(made, "runner")
    answer = runner.post("/oidc/confirm", {"act": "token"})
    assert answer.status_code == 409 and "password" in answer.text
    assert "/oidc/confirm" not in runner.get("/account").text and 'name="password"' in runner.get("/account").text


def test_what_else_takes_a_password_can_be_confirmed_too(room):
    made, issuer, _ = room
    chief = enter(made, issuer, "chief", "subject-2")
    made.services.store.write("UPDATE users SET password = NULL WHERE name = 'chief'")
    form = {"name": "newcomer"}
    assert 'class="secret"' not in chief.post("/members/invite", form).text
    assert chief.travel("/oidc/confirm", {"act": "govern"}).status_code == 200
    chief.renew("/account")
    answer = chief.post("/members/invite", form)
    assert answer.status_code == 200 and 'class="secret"' in answer.text
    assert 'class="secret"' not in chief.post("/members/invite", {"name": "another"}).text  # once
    assert chief.travel("/oidc/confirm", {"act": "token"}).status_code == 200
    chief.renew("/account")
    assert "perdure-" in chief.post("/account/tokens", {"label": "ci", "scopes": "read"}).text
    runner = enter(made, issuer, "runner", "subject-3")
    glass = {"alias": "production", "reason": "the answers are dangerous", "hours": "1"}
    about = {"act": "break-glass", "version": made.shop.version("v1").id}
    assert runner.travel("/oidc/confirm", {**about, "alias": "staging"}).status_code == 200
    runner.renew("/account")
    assert runner.post("/versions/v1/break-glass", glass).status_code == 403
    assert runner.travel("/oidc/confirm", about).status_code == 200
    runner.renew("/account")
    assert runner.post("/versions/v1/break-glass", glass).status_code == 303


def test_a_password_still_counts_for_who_has_both(room):
    made, issuer, _ = room
    runner = enter(made, issuer, "runner", "subject-3")
    runner.renew("/account")
    page = runner.get("/account").text
    assert "/oidc/confirm" in page and 'name="password"' in page
    form = {"label": "ci", "scopes": "read"}
    assert "perdure-" in runner.post("/account/tokens", {**form, "password": PASSWORD}).text
    assert runner.post("/account/tokens", {**form, "password": "wrong"}).status_code in (403, 422)


def test_the_api_takes_a_confirmation_as_the_page_does(room):
    made, _, person = room
    confirm, form = consent(made)
    person.renew("/account")
    assert person.send("/api/v1/versions/v1/approve", form).status_code == 403
    person.travel("/oidc/confirm", confirm)
    person.renew("/account")
    assert person.send("/api/v1/versions/v1/approve", form).status_code == 204
    assert person.send("/api/v1/versions/v1/approve", form).status_code == 403
