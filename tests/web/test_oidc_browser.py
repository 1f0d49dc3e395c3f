"""To a provider on another site and back in a real browser, which holds forms and cookies to their rules."""

import shutil
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import httpx
from browsing import QUICK_HASH
from chromium import chromium, free_port, listening, shoot
from issuing import CLIENT, SECRET, Issuer
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure import Workspace
from perdure.web.server import ServerSettings, Services, create_app
from perdure.web.server.oidc.settings import OidcSettings


@contextmanager
def provider():
    """A provider that listens; to a browser `localhost` is another site than 127.0.0.1."""
    port = free_port()
    issuer = Issuer(time.time, issuer=f"http://localhost:{port}/realm")

    async def authorize(request):
        query, asked = issuer.authorize(str(request.url))
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(query)}", status_code=302)

    async def other(request):
        asked = httpx.Request(
            request.method, str(request.url), headers=request.headers.raw, content=await request.body()
        )
        given = issuer.answer(asked)
        return Response(given.content, given.status_code, media_type="application/json")

    routes = [Route("/realm/authorize", authorize), Route("/realm/{path:path}", other, methods=["GET", "POST"])]
    with listening(Starlette(routes=routes), port):
        yield issuer


@contextmanager
def server(folder, issuer):
    """A server that knows the provider."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    oidc = OidcSettings(
        issuer=issuer.issuer, client_id=CLIENT, client_secret=SECRET, origin=origin, label="Example login"
    )
    settings = ServerSettings(hosts=frozenset({f"127.0.0.1:{port}"}), oidc=oidc)
    services = Services.over(Workspace.open(folder), settings, hasher=QUICK_HASH)
    with listening(create_app(services).state.shielded, port) as address:
        yield services, address


def test_an_approver_signs_in_at_another_site_and_confirms_there(peopled_shop, tmp_path):
    shutil.copytree(peopled_shop, tmp_path / "shop")
    with chromium() as browser, provider() as issuer, server(tmp_path / "shop", issuer) as (services, address):
        services.identities.expect("agreer", issuer.email)
        at = browser.new_context(base_url=address, locale="en", reduced_motion="reduce").new_page()
        at.set_default_timeout(20_000)
        faults = []
        at.on("pageerror", lambda error: faults.append(str(error)))
        at.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        at.goto("/versions/v1")
        at.wait_for_url("**/sign-in?next=/versions/v1")
        shoot(at, "sign-in-provider")
        at.get_by_role("button", name="Sign in with Example login").click()
        at.wait_for_url("**/versions/v1")  # the strict cookie came along
        assert "agreer" in at.locator("header").inner_text()
        services.store.write("UPDATE users SET password = NULL WHERE name = 'agreer'")
        at.reload()
        assert at.locator("button.agree").count() == 0
        at.get_by_role("button", name="Confirm at Example login").first.click()
        at.wait_for_url("**/versions/v1#decision")
        at.locator("button.agree").click()
        at.wait_for_load_state()
        shoot(at, "approved-provider")
        assert [one.approval.approver for one in services.shop.approvals("v1")] == ["agreer"]
        assert faults == []
