"""What is believed of a provider, what it costs when it is down, and what may be set."""

import shutil

import httpx
import pytest
from browsing import HOST, Browser
from issuing import ISSUER, Issuer, Traveller, serve
from joserfc.jwk import RSAKey
from typer.testing import CliRunner

from perdure.errors import SettingError
from perdure.web.server import ServerSettings
from perdure.web.server.oidc.identities import Identities
from perdure.web.server.oidc.settings import SECRET, OidcSettings, read_secret
from perdure.web.server.oidc.verifying import public_keys
from perdure.web.server.running import Listening

KEY = RSAKey.generate_key(2048, {"kid": "first"})
GIVEN = {"issuer": ISSUER, "client_id": "x", "origin": "https://perdure.example.com"}


@pytest.fixture
def door(served):
    made, issuer = serve(served.shop, Issuer(served.clock, key=KEY), served.clock)
    made.services.identities.expect("agreer", "agreer@example.com")
    return made, issuer, Traveller(made, issuer)


def test_a_provider_that_is_down_is_said_and_not_asked_at_once_again(door):
    made, issuer, person = door
    issuer.down = True
    answer, address = person.leave()
    assert answer.status_code == 502 and not address and "password" in answer.text
    issuer.down = False
    assert person.leave()[0].status_code == 502 and issuer.seen == []
    made.clock.now += 11
    assert person.travel().status_code == 200
    assert Browser(made, "runner").get("/account").status_code == 200  # passwords do not depend on it


def test_a_provider_that_goes_down_on_the_way_opens_nothing(door):
    _, issuer, person = door
    query, _ = issuer.authorize(person.leave()[1])
    issuer.down = True
    assert person.come_back(query).status_code == 502 and person.who() == ""


UNTRUSTED = [
    {"issuer": "https://evil.example"}, {"issuer": f"{ISSUER}/"}, {"token_endpoint": "http://login.example.com/token"},
    {"jwks_uri": "http://127.0.0.1/keys"}, {"authorization_endpoint": "javascript:alert(1)"},
    {"authorization_endpoint": 'https://x.example/"><script>'}, {"token_endpoint": None}, {"jwks_uri": "file:///etc/passwd"},
    {"code_challenge_methods_supported": ["plain"]}, {"token_endpoint": "https://user@evil.example/"},
]  # fmt: skip


@pytest.mark.parametrize("metadata", UNTRUSTED)
def test_a_description_that_cannot_be_trusted_is_not_used(door, metadata):
    _, issuer, person = door
    issuer.metadata = metadata
    answer, address = person.leave()
    assert answer.status_code == 502 and not address and "script>" not in address


ANSWERS = [
    httpx.Response(302, headers={"location": "http://169.254.169.254/"}),
    httpx.Response(200, content=b"x" * 300_000),
    httpx.Response(200, content=b"[" * 100_000),
    httpx.Response(200, json=["id_token"]),
    httpx.Response(200, json={"id_token": 7}),
    httpx.Response(200, content=b"\xff\xfe"),
    httpx.Response(500, json={"id_token": "x"}),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_odd_answers_open_nothing_and_break_nothing(door, answer):
    _, issuer, person = door
    issuer.token_answer = answer
    assert person.travel().status_code in (403, 502) and person.who() == ""


def test_redirects_are_not_followed(door):
    made, issuer, _ = door
    seen = []

    def answer(request):
        seen.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://169.254.169.254/latest"})

    issuer.answer = answer
    made, issuer = serve(made.shop, issuer, made.clock)
    assert Traveller(made, issuer).leave()[0].status_code == 502
    assert seen == [f"{ISSUER}/.well-known/openid-configuration"]


def test_a_provider_that_always_names_itself_must(door):
    _, issuer, person = door
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    query, _ = issuer.authorize(person.leave()[1])
    assert person.come_back(query).status_code == 403
    query, _ = issuer.authorize(person.leave()[1])
    assert person.come_back({**query, "iss": ISSUER}).status_code == 200


def test_only_keys_that_can_check_a_signature_are_kept():
    public = KEY.as_dict(private=False)
    weak = RSAKey.generate_key(1024, {"kid": "weak"}).as_dict(private=False)
    given = [
        public, {**public, "use": "enc", "kid": "2"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "3"}, {"kty": "RSA"}, weak,
        {"kty": "new"}, "text", {**KEY.as_dict(private=True), "kid": "private"},
    ]  # fmt: skip
    assert [key.kid for key in public_keys({"keys": given}).keys][:1] == ["first"]
    assert {key.kid for key in public_keys({"keys": given}).keys} <= {"first", "private"}
    assert not public_keys({"keys": "x"}).keys and not public_keys({}).keys


def test_another_claim_names_people_where_the_operator_says_so(served):
    made, issuer = serve(served.shop, Issuer(served.clock, key=KEY), served.clock, claim="preferred_username")
    made.services.identities.expect("agreer", "Agreer")
    issuer.verified, issuer.claims = False, {"preferred_username": "agreer"}
    person = Traveller(made, issuer)
    assert "scope=openid+email+profile" in person.leave()[1]
    assert person.travel().status_code == 200 and person.who() == "agreer"


def test_the_secret_may_go_in_the_form_or_be_none(served):
    made, issuer = serve(served.shop, Issuer(served.clock, key=KEY), served.clock)
    provider = made.services.provider
    fields, headers = provider._credentials(("client_secret_post",))
    assert fields["client_secret"] == "s3cret/with+signs:" and not headers
    public, _ = serve(served.shop, issuer, served.clock, client_secret=None)
    assert public.services.provider._credentials(("client_secret_basic",)) == ({"client_id": "perdure-client"}, {})


REFUSED = [
    {"issuer": "http://login.example.com"}, {"issuer": "login.example.com"}, {"issuer": "https://x.example/?a=b"},
    {"issuer": "https://x.example/#a"}, {"issuer": "file:///x"}, {"issuer": "https://u:p@x.example"}, {"issuer": ""},
    {"origin": "https://perdure.example.com/path"}, {"client_id": ""}, {"claim": ""}, {"claim": "a b"}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize("given", REFUSED)
def test_settings_that_will_not_do(given):
    with pytest.raises(ValueError):
        OidcSettings(**{**GIVEN, **given})


def test_http_is_for_this_machine_alone():
    for host in ("localhost:9000", "127.0.0.1:9000", "[::1]:9000"):
        assert OidcSettings(**{**GIVEN, "issuer": f"http://{host}/realm"}).loopback
    assert OidcSettings(**GIVEN).redirect == "https://perdure.example.com/oidc/callback"
    assert OidcSettings(**GIVEN).name == "login.example.com"


def test_the_public_address_must_be_one_that_is_answered():
    with pytest.raises(ValueError, match="not answered"):
        ServerSettings(hosts=frozenset({HOST}), oidc=OidcSettings(**GIVEN))


ORIGINS = [
    ({}, "http://127.0.0.1:8321"),
    ({"port": 80}, "http://127.0.0.1"),
    ({"behind_tls": True, "names": ("Perdure.example.com",)}, "https://perdure.example.com"),
    ({"behind_tls": True, "names": ("perdure.example.com:8443", "b.example")}, "https://perdure.example.com:8443"),
    ({"certificate": "c", "key": "k", "port": 443, "names": ("a.example",)}, "https://a.example"),
    ({"certificate": "c", "key": "k", "port": 8443, "names": ("a.example",)}, "https://a.example:8443"),
]


@pytest.mark.parametrize(("given", "origin"), ORIGINS)
def test_the_public_address_follows_from_how_the_server_was_started(given, origin):
    listening = Listening(**given)
    assert listening.origin == origin
    settings = listening.settings(OidcSettings(**{**GIVEN, "origin": listening.origin}))
    assert settings.oidc.redirect == f"{origin}/oidc/callback"


def test_the_secret_comes_from_a_file_or_the_environment_and_leaves_it(tmp_path, monkeypatch):
    file = tmp_path / "secret.txt"
    file.write_text("of the file\n".replace(" ", "-"))
    monkeypatch.delenv(SECRET, raising=False)
    assert read_secret(None) is None and read_secret(file).get_secret_value() == "of-the-file"
    monkeypatch.setenv(SECRET, "of-the-environment")
    with pytest.raises(SettingError, match="twice"):
        read_secret(file)
    monkeypatch.setenv(SECRET, "of-the-environment")
    assert read_secret(None).get_secret_value() == "of-the-environment"
    import os

    assert SECRET not in os.environ  # workers inherit the environment
    for text in ("", "two words", "x" * 5000):
        file.write_text(text)
        with pytest.raises(SettingError) as caught:
            read_secret(file)
        assert not text or text not in str(caught.value)


def test_the_command_takes_no_secret_and_refuses_half_a_provider(tmp_path, monkeypatch):
    from perdure.cli.app import app

    run = CliRunner().invoke
    monkeypatch.setenv("COLUMNS", "200")
    words = run(app, ["serve", "--help"]).output
    assert "--oidc-issuer" in words and "--oidc-secret-file" in words and "--oidc-secret " not in words
    for given in (["--oidc-issuer", ISSUER], ["--oidc-client", "x"]):
        answer = run(app, ["serve", "--workspace", str(tmp_path), *given])
        assert answer.exit_code != 0 and "both" in str(answer.exception) + answer.output
    bad = run(app, ["serve", "--workspace", str(tmp_path), "--oidc-issuer", "http://x.example", "--oidc-client", "x"])
    assert bad.exit_code != 0 and "https" in str(bad.exception) + bad.output


def test_the_commands_make_known_who_signs_in_where(bare_shop, tmp_path, monkeypatch):
    from perdure.cli.app import app
    from perdure.web.server.store import Store

    shutil.copytree(bare_shop, tmp_path / "shop")
    run, where = CliRunner().invoke, ["--workspace", str(tmp_path / "shop")]
    invited = run(app, ["invite", "mori", "--address", "Mori@Example.com", "--as", "sato", *where])
    assert invited.exit_code == 0, invited.output
    assert Identities(Store(tmp_path / "shop")).expected() == {"mori": "mori@example.com"}
    started = []
    monkeypatch.setattr("perdure.web.server.running.serve", lambda services, *_given, **_more: started.append(services))
    monkeypatch.setenv(SECRET, "of-the-environment")
    given = ["--behind-tls", "--host-name", "perdure.example.com", "--oidc-issuer", ISSUER, "--oidc-client", "perdure"]
    served = run(app, ["serve", *given, *where])
    assert served.exit_code == 0, served.output
    assert "of-the-environment" not in served.output
    (services,) = started
    assert services.provider.settings.redirect == "https://perdure.example.com/oidc/callback"
    assert services.provider.settings.client_secret.get_secret_value() == "of-the-environment"
