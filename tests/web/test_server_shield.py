"""What no request gets past: host, origin, form token, size, pace; and what no answer lacks."""

import pytest
from browsing import HOST, PASSWORD, Browser, Served

from perdure.web.server.shield import POLICY


@pytest.mark.parametrize("host", ["evil.example", f"{HOST}:81", f"{HOST}.", "127.0.0.1", "", f"{HOST}@evil.example"])
def test_other_host_names_are_refused(calm, host):
    assert Browser(calm).get("/sign-in", headers={"host": host}).status_code in (400, 421)


def test_two_hosts_are_refused(calm):
    headers = [("host", HOST), ("host", "evil.example")]
    assert Browser(calm).get("/sign-in", headers=headers).status_code in (400, 421)


@pytest.mark.parametrize("path", ["/sign-in", "/nothing", "/api/v1/versions", "/health", "/static/server.css"])
def test_every_answer_is_closed(calm, path):
    headers = Browser(calm).get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers
    assert ("no-store" in headers["cache-control"]) != path.startswith("/static/")


def test_pages_have_no_script_or_style_of_their_own(calm):
    for path in ("/", "/account", "/sign-in"):
        text = Browser(calm, "chief").get(path).text
        assert "<style" not in text and " style=" not in text and "<script>" not in text
        assert "onclick=" not in text and "javascript:" not in text


ORIGINS = [None, "null", "http://evil.example", f"https://{HOST}", f"http://{HOST}.evil.example", f"http://{HOST}:81"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_forms_of_other_sites_are_refused(calm, origin):
    browser = Browser(calm, "asker")
    headers = {} if origin is None else {"origin": origin}
    data = {"form_token": browser.token}
    assert browser.client.post("/account/sign-out-everywhere", data=data, headers=headers).status_code == 403
    assert browser.get("/account").status_code == 200


def test_a_browser_that_says_another_site_sent_it_is_believed(calm):
    browser = Browser(calm, "asker")
    answer = browser.post("/account/sign-out-everywhere", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


@pytest.mark.parametrize("token", ["", "0" * 64, "ｘ"])
def test_forms_without_their_token_are_refused(calm, token):
    browser = Browser(calm, "asker")
    answer = browser.post("/account/sign-out-everywhere", {"form_token": token})
    assert answer.status_code == 403
    assert browser.get("/account").status_code == 200


def test_the_token_of_another_login_does_not_count(calm):
    one, two = Browser(calm, "asker"), Browser(calm, "asker")
    assert one.post("/account/sign-out-everywhere", {"form_token": two.token}).status_code == 403


def test_signing_in_needs_a_form_token_too(calm):
    browser = Browser(calm)
    browser.renew()
    form = {"name": "asker", "password": PASSWORD, "form_token": "0" * 64}
    assert browser.post("/sign-in", form).status_code == 403


def test_a_body_that_is_too_large_is_refused_before_it_is_read(calm):
    browser = Browser(calm, "asker")
    large = {"name": "x" * (calm.settings.body_bytes + 1)}
    assert browser.post("/sign-in", large).status_code == 413


def test_a_body_that_hides_its_length_is_counted(calm):
    browser = Browser(calm, "asker")

    def parts():
        for _ in range(40):
            yield b"x" * 4096

    headers = {"origin": f"http://{HOST}", "content-type": "application/x-www-form-urlencoded"}
    assert browser.client.post("/sign-in", content=parts(), headers=headers).status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "99999999999999999999", "1, 2"])
def test_odd_lengths_are_refused(calm, length):
    headers = [(b"content-length", length.encode()), (b"origin", f"http://{HOST}".encode())]
    answer = Browser(calm).client.post("/sign-in", content=b"", headers=headers)
    assert answer.status_code in (400, 413)


def test_a_body_that_does_not_come_is_given_up(calm):
    import asyncio

    slow = Served(calm.shop, clock=calm.clock, body_seconds=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"origin", f"http://{HOST}".encode())]
    headers += [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"10")]
    scope = {
        "type": "http", "method": "POST", "path": "/sign-in", "raw_path": b"/sign-in", "query_string": b"",
        "headers": headers, "client": ("test", 1), "server": (HOST, 80), "scheme": "http", "root_path": "",
        "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(slow.app.state.shielded(scope, receive, send))
    assert sent[0]["status"] == 408


def test_too_many_requests_of_one_address_are_refused(calm):
    busy = Served(calm.shop, clock=calm.clock, requests_per_minute=6, writes_per_minute=2)
    browser = Browser(busy)
    found = [browser.get("/health").status_code for _ in range(8)]
    assert found == [200] * 6 + [429] * 2
    busy = Served(calm.shop, clock=calm.clock, writes_per_minute=2)
    browser = Browser(busy)
    found = [browser.post("/sign-in", {"name": "x", "password": "y"}).status_code for _ in range(3)]
    assert found == [403, 403, 429]


def test_web_sockets_are_refused(calm):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), Browser(calm).client.websocket_connect("/"):
        pass


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/vega.min.js", "/static/", "/static/server.css/x"]
)
def test_only_the_listed_files_are_given_out(calm, path):
    assert Browser(calm).get(path).status_code == 404
