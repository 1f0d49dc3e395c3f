"""Signing in at a provider: who comes in, once, in the same browser; and everything that does not open the door."""

import pytest
from browsing import HOST, PASSWORD, Browser, Served
from issuing import Issuer, Traveller, elliptic, keyed_with, link, serve, shared, unsigned
from joserfc.jwk import ECKey, RSAKey

from perdure.workspace import Workspace

LOGIN, FLOW = "perdure-plain-http", "perdure-plain-http-oidc"
KEY = RSAKey.generate_key(2048, {"kid": "first"})


@pytest.fixture
def door(served):
    """A server that knows a provider, with an account that awaits an address there, and its traveller."""
    made, issuer = serve(served.shop, Issuer(served.clock, key=KEY), served.clock)
    made.services.identities.expect("agreer", "agreer@example.com")
    return made, issuer, Traveller(made, issuer)


def rows_of(served, action):
    return [entry for entry in served.shop.archive.log() if entry.action == action]


def test_an_address_that_an_administrator_named_opens_the_account_once(door):
    served, issuer, person = door
    _, address = person.leave()
    assert address.startswith(f"{issuer.issuer}/authorize?") and "client_id=perdure-client" in address
    query, asked = issuer.authorize(address)
    assert asked["redirect_uri"] == f"http://{HOST}/oidc/callback"
    back = person.come_back(query)
    assert back.status_code == 200 and link(back) == "/"
    assert person.who() == "agreer"
    (row,) = rows_of(served, "identity linked")
    assert row.details["how"] == "address" and "example.com/realm" in row.details["issuer"]
    assert "agreer@" not in str(row.details) and "subject-1" not in str(row.details)
    # From now on the identity counts and the address no more: whoever gets it later is somebody else.
    issuer.user = "subject-2"
    other = Traveller(served, issuer)
    assert other.travel().status_code == 409 and other.who() == ""
    issuer.user, issuer.email, issuer.verified = "subject-1", "married@example.com", False
    again = Traveller(served, issuer)
    assert again.travel().status_code == 200 and again.who() == "agreer"


def test_an_invitation_links_an_identity_and_is_used_up(door):
    served, issuer, person = door
    issuer.user, issuer.email = "subject-9", "new@example.com"
    name, code = served.services.accounts.invite("new")
    assert person.travel("/oidc/join", {"name": "New", "code": code}).status_code == 200
    assert person.who() == "new" and rows_of(served, "identity linked")[0].details["how"] == "invitation"
    again = Traveller(served, issuer)
    assert again.post("/oidc/join", {"name": name, "code": code}).status_code == 409
    assert again.travel().status_code == 200 and again.who() == "new"
    assert Browser(served).post("/sign-in", {"name": "new", "password": ""}).status_code in (403, 422)


def test_a_code_that_is_used_or_withdrawn_meanwhile_opens_nothing(door):
    served, issuer, person = door
    _, code = served.services.accounts.invite("new")
    issuer.user = "subject-9"
    _, address = person.leave("/oidc/join", {"name": "new", "code": code})
    served.services.accounts.join(code, "new", PASSWORD)
    assert person.come_back(issuer.authorize(address)[0]).status_code == 409
    assert person.who() == ""


def test_wrong_codes_are_counted(door):
    served, issuer, _ = door
    served.services.accounts.invite("new")
    slow = Served(
        served.shop, clock=served.clock, transport=issuer.transport, oidc=served.settings.oidc, tries_per_address=3
    )
    browser = Browser(slow)
    found = [browser.post("/oidc/join", {"name": "new", "code": "invite-x"}) for _ in range(4)]
    assert [answer.status_code for answer in found] == [409] * 4
    assert "quarter" in found[-1].text and "quarter" not in found[0].text


def test_an_identity_opens_one_account_and_an_account_has_one_identity(door):
    served, issuer, person = door
    person.travel()
    _, code = served.services.accounts.invite("new")
    assert person.travel("/oidc/join", {"name": "new", "code": code}).status_code == 409
    assert served.services.accounts.invited(code, "new")  # not used up
    issuer.user, issuer.email = "subject-2", "other@example.com"
    _, code = served.services.accounts.invite("agreer")
    newcomer = Traveller(served, issuer)
    assert newcomer.travel("/oidc/join", {"name": "agreer", "code": code}).status_code == 200
    assert person.who() == ""  # the logins before ended
    issuer.user = "subject-1"
    assert Traveller(served, issuer).travel().status_code == 409


def test_another_provider_takes_over_with_a_new_word_of_the_administrator(door):
    """The same subject at another provider is somebody else."""
    served, issuer, person = door
    person.travel()
    made, other = serve(served.shop, Issuer(served.clock, key=KEY, issuer="https://new.example.com"), served.clock)
    newcomer = Traveller(made, other)
    assert newcomer.travel().status_code == 409 and newcomer.who() == ""
    made.services.identities.expect("agreer", "agreer@example.com")
    assert newcomer.travel().status_code == 200 and newcomer.who() == "agreer"
    assert served.services.identities.linked(issuer.issuer) == frozenset()


def test_an_invitation_for_an_awaited_person_is_for_no_other(door):
    served, issuer, person = door
    issuer.email = "other@example.com"
    _, code = served.services.accounts.invite("agreer")
    assert person.travel("/oidc/join", {"name": "agreer", "code": code}).status_code == 409
    assert served.services.accounts.invited(code, "agreer") and person.who() == ""


@pytest.mark.parametrize(
    ("email", "verified"),
    [
        ("agreer@example.com", False),
        ("agreer@example.com", None),
        ("agreer@example.com", "true"),
        ("agreer@example.com", 1),
        ("stranger@example.com", True),
        ("", True),
        (None, True),
        (["agreer@example.com"], True),
    ],
)
def test_nobody_signs_up(door, email, verified):
    served, issuer, person = door
    issuer.email, issuer.verified = email, verified
    answer = person.travel()
    assert answer.status_code == 409 and "invitation" in answer.text and "stranger@" not in answer.text
    assert person.who() == "" and LOGIN not in answer.cookies
    assert served.services.identities.linked(issuer.issuer) == frozenset()


def test_letters_that_look_alike_are_not_made_equal(door):
    served, issuer, person = door
    served.services.identities.expect("checker", "kim@example.com")
    issuer.email = "\u212aim@example.com"  # the Kelvin sign, which case folding makes a k
    assert person.travel().status_code == 409
    issuer.email = "KIM@example.com"
    assert person.travel().status_code == 200 and person.who() == "checker"


def test_who_is_disabled_stays_out_before_and_after_the_link(door):
    served, issuer, person = door
    served.services.accounts.disable("agreer", disabled=True)
    assert person.travel().status_code == 409 and person.who() == ""
    served.services.accounts.disable("agreer", disabled=False)
    assert person.travel().status_code == 200
    served.services.accounts.disable("agreer", disabled=True)
    assert person.who() == ""
    again = Traveller(served, issuer)
    answer = again.travel()
    assert answer.status_code == 403 and again.who() == "" and LOGIN not in answer.cookies


def test_a_way_is_walked_once(door):
    _, issuer, person = door
    _, address = person.leave()
    query, asked = issuer.authorize(address)
    kept = person.client.cookies[FLOW]
    assert person.come_back(query).status_code == 200
    issuer.codes[query["code"]] = asked
    thief = Traveller(person.served, issuer)
    thief.client.cookies.set(FLOW, kept)
    assert thief.come_back(query).status_code == 403 and thief.who() == ""


def test_a_way_is_bound_to_its_browser_and_another_does_not_use_it_up(door):
    served, issuer, person = door
    _, address = person.leave()
    query, _ = issuer.authorize(address)
    other = Traveller(served, issuer)
    assert other.come_back(query).status_code == 403
    other.leave()  # with a cookie of its own, too
    assert other.come_back(query).status_code == 403 and other.who() == ""
    assert person.come_back(query).status_code == 200


@pytest.mark.parametrize("state", ["", "x", "\u202e", "a" * 5000, None])
def test_a_wrong_state_opens_nothing(door, state):
    _, issuer, person = door
    _, address = person.leave()
    query, _ = issuer.authorize(address)
    wrong = {**query, "state": state} if state is not None else {"code": query["code"]}
    assert person.come_back(wrong).status_code == 403
    assert "/realm/token" not in issuer.seen


def test_names_that_stand_twice_are_not_chosen_from(door):
    _, issuer, person = door
    query, _ = issuer.authorize(person.leave()[1])
    assert person.come_back([*query.items(), ("code", "code-9")]).status_code == 403
    assert "/realm/token" not in issuer.seen


def test_a_way_ends(door):
    served, issuer, person = door
    query, _ = issuer.authorize(person.leave()[1])
    served.clock.now += served.settings.oidc.flow_seconds + 1
    assert person.come_back(query).status_code == 403


def test_the_code_of_another_way_is_of_no_use(door):
    """Somebody plants the code of their own login: the verifier belongs to the other way."""
    served, issuer, person = door
    own, asked = issuer.authorize(Traveller(served, issuer).leave()[1])
    _, address = person.leave()
    query, _ = issuer.authorize(address)
    with pytest.raises(AssertionError):  # a provider refuses it; this one says so by the assertion that it makes
        issuer.exchange(_request(own["code"], "wrong verifier"))
    issuer.codes[query["code"]] = asked
    person.client._transport.raise_server_exceptions = False
    assert person.come_back(query).status_code >= 400 and person.who() == ""


def _request(code, verifier):
    import httpx

    pair = "cGVyZHVyZS1jbGllbnQ6czNjcmV0JTJGd2l0aCUyQnNpZ25zJTNB"
    form = {"code": code, "code_verifier": verifier, "redirect_uri": f"http://{HOST}/oidc/callback"}
    return httpx.Request("POST", "https://x.example/token", data=form, headers={"authorization": f"Basic {pair}"})


FALSE = {
    "nonce": {"nonce": "another"}, "no nonce": {"nonce": None}, "audience": {"aud": "another"},
    "audiences": {"aud": ["perdure-client", "another"]}, "party": {"azp": "another"}, "no audience": {"aud": None},
    "issuer": {"iss": "https://evil.example"}, "no issuer": {"iss": None},
    "slash": {"iss": "https://login.example.com/realm/"}, "expired": {"exp": 1_700_000_000},
    "no end": {"exp": None}, "endless": {"exp": float("nan")}, "text": {"exp": "never"},
    "future": {"iat": 1_900_000_000}, "not yet": {"nbf": 1_900_000_000}, "no subject": {"sub": None},
    "empty": {"sub": ""}, "number": {"sub": 7}, "long": {"sub": "x" * 256},
}  # fmt: skip


@pytest.mark.parametrize("claims", FALSE.values(), ids=FALSE)
def test_a_token_that_says_something_false_is_not_believed(door, claims):
    served, issuer, person = door
    issuer.claims = claims
    answer = person.travel()
    assert answer.status_code == 403 and person.who() == "" and LOGIN not in answer.cookies
    assert served.services.identities.linked(issuer.issuer) == frozenset()


def forgeries():
    public = KEY.as_dict(private=False)
    yield "none", unsigned
    yield "public PEM", keyed_with(KEY.as_pem(private=False))
    yield "public DER", keyed_with(KEY.as_der(private=False))
    yield "modulus", keyed_with(public["n"].encode())
    yield "text", lambda claims: "not a token"
    yield "cut", lambda claims: Issuer(None, key=KEY).signed(claims, KEY)[:-8]
    yield (
        "stranger's key",
        lambda claims: Issuer(None, key=KEY).signed(claims, RSAKey.generate_key(2048, {"kid": "first"})),
    )
    yield (
        "curve",
        lambda claims: Issuer(None, key=elliptic()).signed(claims, ECKey.generate_key("P-256", {"kid": "first"})),
    )


@pytest.mark.parametrize(("name", "forge"), list(forgeries()), ids=[name for name, _ in forgeries()])
def test_a_forged_signature_is_not_believed(door, name, forge):
    _, issuer, person = door
    issuer.forge = forge
    answer = person.travel()
    assert answer.status_code == 403 and person.who() == "" and LOGIN not in answer.cookies


def test_a_key_set_that_holds_a_shared_secret_does_not_make_it_one(door):
    _, issuer, person = door
    secret = shared()
    issuer.forge = keyed_with(secret.raw_value)
    issuer.keys = [secret]
    assert person.travel().status_code == 403 and person.who() == ""


def test_a_curve_signs_too(served):
    made, issuer = serve(served.shop, Issuer(served.clock, key=elliptic()), served.clock)
    made.services.identities.expect("agreer", "agreer@example.com")
    person = Traveller(made, issuer)
    assert person.travel().status_code == 200 and person.who() == "agreer"


def test_keys_that_changed_are_read_once_more_and_only_once(door):
    served, issuer, person = door
    person.travel()
    assert issuer.seen.count("/realm/keys") == 1
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "second"})]
    again = Traveller(served, issuer)
    assert again.travel().status_code == 200 and again.who() == "agreer"
    assert issuer.seen.count("/realm/keys") == 2
    unknown = RSAKey.generate_key(2048, {"kid": "third"})
    issuer.forge = lambda claims: issuer.signed(claims, unknown)
    lost = Traveller(served, issuer)
    assert lost.travel().status_code == 403 and lost.who() == ""
    assert issuer.seen.count("/realm/keys") == 3


GOALS = [
    "https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/%0d%0aset-cookie:x",
    "/a?b=//c",    '/"><script>', "https:evil.example", "\\\\evil.example", "/x\nhttps://evil.example",
]  # fmt: skip


@pytest.mark.parametrize("goal", GOALS)
def test_the_way_leads_nowhere_else(door, goal):
    _, _, person = door
    assert link(person.travel(data={"next": goal})) == "/"


def test_the_way_leads_to_where_somebody_wanted_to_go(door):
    _, issuer, person = door
    query, _ = issuer.authorize(person.leave(data={"next": "/versions/v1"})[1])
    back = person.come_back({**query, "next": "https://evil.example", "goal": "//evil.example"})
    assert link(back) == "/versions/v1"


def test_the_provider_sends_browsers_to_the_public_address_whatever_host_they_name(served):
    made, issuer = serve(served.shop, clock=served.clock)
    object.__setattr__(made.settings, "hosts", frozenset({HOST, "other.example"}))
    browser = Browser(made)
    browser.client.base_url = "http://other.example"
    browser.renew()
    answer = browser.post("/oidc/sign-in", headers={"origin": "http://other.example"})
    assert answer.status_code == 409 and f"http://{HOST}" in answer.text and FLOW not in answer.cookies
    assert issuer.seen == []


def test_the_words_of_a_provider_are_not_shown(door):
    _, issuer, person = door
    query, _ = issuer.authorize(person.leave()[1])
    words = "<b>call 555-1234</b>"
    bad = {"state": query["state"], "error": words, "error_description": words, "error_uri": "https://evil.example"}
    answer = person.come_back(bad)
    assert answer.status_code == 403 and "555-1234" not in answer.text and "evil.example" not in answer.text
    query, _ = issuer.authorize(person.leave()[1])
    issuer.codes.clear()  # the provider answers with words of its own
    answer = person.come_back(query)
    assert answer.status_code == 403 and "alert(1)" not in answer.text
    query, _ = issuer.authorize(person.leave()[1])
    assert "declined" in person.come_back({"state": query["state"], "error": "access_denied"}).text


def test_an_answer_of_another_provider_is_refused(door):
    _, issuer, person = door
    query, _ = issuer.authorize(person.leave()[1])
    assert person.come_back({**query, "iss": "https://evil.example"}).status_code == 403
    assert "/realm/token" not in issuer.seen
    query, _ = issuer.authorize(person.leave()[1])
    assert person.come_back({**query, "iss": issuer.issuer}).status_code == 200


def test_the_login_is_new_and_the_one_before_ends(door):
    served, _, person = door
    person.travel()
    first = person.client.cookies[LOGIN]
    assert person.travel().status_code == 200
    assert person.client.cookies[LOGIN] != first
    other = Browser(served)
    other.client.cookies.set(LOGIN, first)
    assert other.get("/account").status_code == 303
    served.services.logins.close_all("agreer")
    assert person.who() == ""


def test_the_cookies_are_closed_and_bound_to_the_host(served):
    origin = f"https://{HOST}"
    made, issuer = serve(served.shop, clock=served.clock, origin=origin)
    secure = Served(
        served.shop, clock=served.clock, transport=issuer.transport, scheme="https", oidc=made.settings.oidc
    )
    secure.services.identities.expect("agreer", "agreer@example.com")
    person = Traveller(secure, issuer)
    person.client.base_url = origin
    person.renew()
    answer = person.post("/oidc/sign-in", headers={"origin": origin})
    flow = answer.headers["set-cookie"].lower()
    assert flow.startswith("__host-perdure-oidc=") and "samesite=lax" in flow and "max-age=600" in flow
    assert "secure" in flow and "httponly" in flow and "path=/" in flow and "domain" not in flow
    back = person.come_back(issuer.authorize(link(answer))[0])
    cookies = {one.split("=")[0]: one.lower() for one in back.headers.get_list("set-cookie")}
    assert "samesite=strict" in cookies["__Host-perdure"] and "secure" in cookies["__Host-perdure"]
    assert "max-age=0" in cookies["__Host-perdure-oidc"]


def test_nothing_that_opens_a_door_is_stored_or_written_down(door, caplog):
    served, issuer, person = door
    caplog.set_level(0)
    _, address = person.leave()
    query, asked = issuer.authorize(address)
    secrets = [query["state"], asked["nonce"], person.client.cookies[FLOW]]
    person.come_back(query)
    secrets += [person.client.cookies[LOGIN], "s3cret/with+signs:", query["code"]]
    kept = b"".join(path.read_bytes() for path in served.shop.folder.glob("*.sqlite*"))
    for opens in secrets:
        assert opens.encode() not in kept
    perdures = [record.getMessage() for record in caplog.records if record.name.startswith("perdure")]
    assert not any(opens in words for words in perdures for opens in secrets)
    assert "s3cret" not in repr(served.settings) + str(served.settings.model_dump())


@pytest.mark.parametrize("origin", [None, "null", "https://login.example.com", "http://evil.example"])
def test_other_sites_do_not_begin_a_way(door, origin):
    _, _, person = door
    person.renew()
    headers = {} if origin is None else {"origin": origin}
    for path in ("/oidc/sign-in", "/oidc/join"):
        answer = person.client.post(path, data={"form_token": person.token}, headers=headers)
        assert answer.status_code == 403 and FLOW not in answer.cookies


def test_pages_show_the_provider_only_where_there_is_one(door, served):
    with_it, without = Browser(door[0]), Browser(served)
    for path in ("/sign-in", "/join"):
        assert "Example login" in with_it.get(path).text and "/oidc/" in with_it.get(path).text
        assert "/oidc/" not in without.get(path).text
    for path in ("/oidc/sign-in", "/oidc/join"):
        assert without.post(path, {"name": "x", "code": "y"}).status_code == 404
    assert without.get("/oidc/callback?code=x&state=y").status_code == 404
    assert Browser(served, "asker").post("/oidc/confirm", {"act": "token"}).status_code == 404


def test_forms_stay_held_to_this_server(door):
    _, _, person = door
    answer, _ = person.leave()
    assert "form-action 'self';" in answer.headers["content-security-policy"]
    assert 'action="http' not in answer.text


def test_the_first_account_may_come_from_the_provider(empty):
    made, issuer = serve(empty.shop, clock=empty.clock)
    made.services.accounts.invite("first")
    made.services.identities.expect("first", "agreer@example.com")
    assert "Example login" in Browser(made).get("/setup").text
    person = Traveller(made, issuer)
    person.renew("/setup")
    address = link(person.post("/oidc/sign-in"))
    assert person.come_back(issuer.authorize(address)[0]).status_code == 200 and person.who() == "first"
    assert not made.services.accounts.empty()


def test_an_administrator_names_addresses_and_unlinks(door):
    served, issuer, person = door
    chief = Browser(served, "chief")
    form = {"name": "checker", "address": "Checker@Example.com", "password": PASSWORD}
    assert chief.post("/members/address", {**form, "password": "wrong"}).status_code == 403
    assert chief.post("/members/address", form).status_code == 303
    assert chief.post("/members/address", {**form, "name": "runner"}).status_code == 422  # an address opens one account
    assert chief.post("/members/address", {**form, "name": "unknown"}).status_code in (409, 422)
    assert "checker@example.com" in chief.get("/members").text
    issuer.email = "checker@example.com"
    person.travel()
    assert person.who() == "checker" and "signs in at" in chief.get("/members").text
    assert chief.post("/members/unlink", {"name": "checker"}).status_code == 303
    assert person.who() == "" and person.travel().status_code == 409
    assert [row.actor for row in rows_of(served, "identity unlinked")] == ["chief"]


def test_a_database_of_before_is_taken_along(tmp_path, bare_shop):
    import shutil
    import sqlite3

    from perdure.web.server import store

    shutil.copytree(bare_shop, tmp_path / "shop")
    path = tmp_path / "shop" / store.FILE_NAME
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    for statement in store._STEPS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO users (name, folded, created) VALUES ('mori', 'mori', 0)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    shop = Workspace.open(tmp_path / "shop")
    served, _ = serve(shop)
    served.services.identities.expect("mori", "mori@example.com")
    assert [account.name for account in served.services.accounts.all()] == ["mori"]
