"""Coming in: the first code, invitations, logins that end, wrong passwords that are counted."""

import pytest
from browsing import HOST, PASSWORD, Browser, Served

from perdure.errors import RefusedError, SettingError
from perdure.web.server import ServerSettings
from perdure.web.server.logins import Logins

COOKIE = "perdure-plain-http"


def set_up(browser, code, name="chief", password=PASSWORD):
    browser.renew("/setup")
    return browser.post("/setup", {"code": code, "name": name, "password": password, "again": password})


def test_only_the_newest_code_opens_the_first_account_and_only_once(empty):
    old, code = empty.services.accounts.setup_code(), empty.services.accounts.setup_code()
    browser = Browser(empty)
    assert browser.get("/").headers["location"] == "/setup"
    assert set_up(browser, old).status_code == 422
    answer = set_up(browser, code)
    assert answer.status_code == 303
    assert empty.shop.roles("chief") == {"admin"}
    assert Browser(empty).get("/setup").headers["location"] == "/sign-in"
    with pytest.raises(RefusedError):
        empty.services.accounts.set_up(code, "other", PASSWORD)
    with pytest.raises(RefusedError):
        empty.services.accounts.setup_code()


def test_the_code_ends(empty):
    code = empty.services.accounts.setup_code()
    empty.clock.now += 3600 * empty.settings.invitation_hours + 1
    assert set_up(Browser(empty), code).status_code == 422
    assert empty.services.accounts.empty()


def test_the_first_account_of_a_workspace_with_members_is_one_of_its_administrators(empty):
    empty.shop.grant("mori", "admin", by="mori")
    code = empty.services.accounts.setup_code()
    answer = set_up(Browser(empty), code, "intruder")
    assert answer.status_code == 422 and "mori" in answer.text
    assert set_up(Browser(empty), code, "mori").status_code == 303


@pytest.mark.parametrize("password", ["short", "a" * 40, "chief-chief-chief", "x" * 600])
def test_weak_passwords_are_refused(empty, password):
    code = empty.services.accounts.setup_code()
    assert set_up(Browser(empty), code, password=password).status_code == 422
    assert empty.services.accounts.empty()


@pytest.mark.parametrize("name", ["perdure", "Machine:ci", "a/b", "", "x" * 65, "a\u202eb"])
def test_names_that_are_not_for_people_are_refused(empty, name):
    with pytest.raises(SettingError):
        empty.services.accounts.invite(name)


def test_nothing_that_opens_a_door_is_stored(empty):
    code = empty.services.accounts.setup_code()
    browser = Browser(empty)
    set_up(browser, code)
    secret, _ = empty.services.tokens.make("chief", "ci", ["read"], 1)
    kept = b"".join(path.read_bytes() for path in empty.shop.folder.glob("server.sqlite*"))
    for opens in (code, secret, browser.client.cookies[COOKIE], PASSWORD):
        assert opens.encode() not in kept
    assert (empty.shop.folder / "server.sqlite").stat().st_mode & 0o077 == 0


def test_an_invitation_is_for_one_name_and_one_use(served):
    own, code = served.services.accounts.invite("new")
    browser = Browser(served)
    form = {"code": code, "password": PASSWORD, "again": PASSWORD}
    assert browser.post("/join", {**form, "name": "checker"}).status_code == 422
    assert browser.post("/join", {**form, "name": own}).status_code == 303
    assert Browser(served).post("/join", {**form, "name": own}).status_code == 422


def test_the_id_changes_with_every_login_and_the_one_before_ends(served):
    browser = Browser(served, "asker")
    first = browser.client.cookies[COOKIE]
    browser.post("/sign-in", {"name": "asker", "password": PASSWORD})
    assert browser.client.cookies[COOKIE] != first
    other = Browser(served)
    other.client.cookies.set(COOKIE, first)
    assert other.get("/account").status_code == 303


def test_an_id_that_was_planted_does_not_become_a_login(served):
    browser = Browser(served)
    browser.client.cookies.set(COOKIE, "planted")
    browser.post("/sign-in", {"name": "asker", "password": PASSWORD})
    planted = Browser(served)
    planted.client.cookies.set(COOKIE, "planted")
    assert planted.get("/").headers["location"] == "/sign-in"


def test_logins_end_by_age_by_rest_by_leaving_and_by_an_administrator(served):
    def signed_in(browser):
        return browser.get("/account").status_code == 200

    idle, aged, left, thrown = (Browser(served, "asker") for _ in range(4))
    served.clock.now += 60 * served.settings.idle_minutes - 40
    assert all(map(signed_in, (aged, left, thrown)))
    served.clock.now += 60
    assert not signed_in(idle) and signed_in(aged)
    left.post("/sign-out")
    assert not signed_in(left)
    served.services.accounts.disable("asker", disabled=True)
    assert not signed_in(thrown)
    served.services.accounts.disable("asker", disabled=False)
    lasting = Browser(served, "asker")
    for _ in range(30):
        served.clock.now += 1800
        still = signed_in(lasting)
    assert not still  # used all along, and over all the same


def test_signing_out_everywhere_and_another_password_end_the_others(served):
    one, two = Browser(served, "asker"), Browser(served, "asker")
    one.post("/account/sign-out-everywhere")
    assert two.get("/account").status_code == 303
    one, two = Browser(served, "asker"), Browser(served, "asker")
    fresh = {"old": PASSWORD, "password": "another horse 34", "again": "another horse 34"}
    assert one.post("/account/password", fresh).status_code == 303
    assert one.get("/account").status_code == 200
    assert two.get("/account").status_code == 303


def test_wrong_passwords_close_the_account_for_a_while_even_after_a_restart(served):
    browser = Browser(served)
    for _ in range(served.settings.tries):
        assert browser.post("/sign-in", {"name": "Asker", "password": "wrong"}).status_code == 403
    assert browser.post("/sign-in", {"name": "asker", "password": PASSWORD}).status_code == 429
    again = Served(served.shop, clock=served.clock)
    assert Browser(again).post("/sign-in", {"name": "asker", "password": PASSWORD}).status_code == 429
    served.clock.now += 60 * served.settings.wait_minutes + 1
    assert browser.post("/sign-in", {"name": "asker", "password": PASSWORD}).status_code == 303


def test_one_address_cannot_try_many_accounts(served):
    browser = Browser(Served(served.shop, clock=served.clock, tries_per_address=5))
    for number in range(5):
        browser.post("/sign-in", {"name": f"user{number}", "password": "wrong"})
    assert browser.post("/sign-in", {"name": "asker", "password": PASSWORD}).status_code == 429


def test_an_unknown_name_is_answered_like_a_wrong_password(served):
    def words(name):
        answer = Browser(served).post("/sign-in", {"name": name, "password": "wrong"})
        return answer.status_code, answer.text.count("not right")

    assert words("asker") == words("unknown") == (403, 1)


@pytest.mark.parametrize("goal", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_leads_nowhere_else(served, goal):
    answer = Browser(served).post("/sign-in", {"name": "asker", "password": PASSWORD, "next": goal})
    assert answer.headers["location"] == "/"


def test_the_cookie_is_closed_to_scripts_and_other_sites(served):
    answer = Browser(served).post("/sign-in", {"name": "asker", "password": PASSWORD})
    words = answer.headers["set-cookie"].lower()
    assert "httponly" in words and "samesite=strict" in words and "path=/" in words and "domain" not in words


def test_over_tls_the_cookie_is_bound_to_the_host(served):
    settings = ServerSettings(hosts=frozenset({HOST}), scheme="https")
    assert Logins(served.services.store, settings).cookie == "__Host-perdure"
    secure = Served(served.shop, clock=served.clock, scheme="https")
    browser = Browser(secure)
    browser.client.base_url = f"https://{HOST}"
    browser.token = ""
    browser.renew()
    form = {"name": "asker", "password": PASSWORD}
    answer = browser.post("/sign-in", form, headers={"origin": f"https://{HOST}"})
    assert answer.status_code == 303
    assert (
        answer.headers["set-cookie"].startswith("__Host-perdure=") and "secure" in answer.headers["set-cookie"].lower()
    )
    assert "max-age" in answer.headers["strict-transport-security"]


def test_passwords_that_are_looked_at_now_count_as_wrong_until_they_are_right(served):
    wrong = served.services.wrong
    counted = [wrong.begin("asker", "10.0.0.9") for _ in range(served.settings.tries)]
    assert all(counted) and wrong.begin("ASKER ", "10.0.0.8") is None
    wrong.forget("asker", counted[0])
    assert wrong.begin("asker", "10.0.0.9") is not None
    rows = served.services.store.rows("SELECT key FROM failures WHERE key = 'address 10.0.0.9'")
    assert len(rows) == served.settings.tries
