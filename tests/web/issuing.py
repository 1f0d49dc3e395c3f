"""An identity provider in this process: real keys and signatures, reached by httpx's transport; it does as told."""

import base64
import hashlib
import hmac
import json
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
from browsing import HOST, Browser, Clock, Served
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

ISSUER, CLIENT, SECRET = "https://login.example.com/realm", "perdure-client", "s3cret/with+signs:"
_LINK = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]*)">')


class Issuer:
    """A provider.

    Attributes:
        claims: What its tokens say beside, or instead of, what is right; None leaves a claim out.
        metadata: The same of what it says of itself.
        user: The subject who signs in.
        seen: The requests that it got, by path.
    """

    def __init__(self, clock, *, key=None, issuer=ISSUER):
        self.clock, self.issuer = clock, issuer
        self.keys = [key or RSAKey.generate_key(2048, {"kid": "first"})]
        self.algorithm = "RS256" if self.keys[0].key_type == "RSA" else "ES256"
        self.user, self.email, self.verified = "subject-1", "agreer@example.com", True
        self.claims, self.metadata, self.seen = {}, {}, []
        self.forge, self.down, self.auth_time = None, False, 0.0
        self.codes, self.token_answer = {}, None

    @property
    def transport(self):
        return httpx.MockTransport(lambda request: unread(self.answer(request)))

    def answer(self, request):
        if self.down:
            raise httpx.ConnectError("no route", request=request)
        self.seen.append(request.url.path)
        path = request.url.path.removeprefix(urlsplit(self.issuer).path)
        if path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self.described())
        if path == "/keys":
            return httpx.Response(200, json={"keys": [key.as_dict(private=False) for key in self.keys]})
        assert path == "/token"
        return self.token_answer or self.exchange(request)

    def described(self):
        said = {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
        }  # fmt: skip
        return {**said, **self.metadata}

    def authorize(self, address):
        """What happens in a browser that is sent there: the person signs in; where they are sent back, as a query."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        if asked.get("prompt") == "login":
            self.auth_time = self.clock()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"]}, asked

    def exchange(self, request):
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        pair = base64.b64encode(b"perdure-client:s3cret%2Fwith%2Bsigns%3A").decode()
        assert request.headers["authorization"] == f"Basic {pair}"
        asked = self.codes.pop(form["code"], None)
        if asked is None:
            return httpx.Response(
                400, json={"error": "invalid_grant", "error_description": "<script>alert(1)</script>"}
            )
        hashed = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(hashed).rstrip(b"=").decode() == asked["code_challenge"]
        assert form["redirect_uri"] == asked["redirect_uri"]
        return httpx.Response(
            200, json={"access_token": "unused", "token_type": "Bearer", "id_token": self.token(asked)}
        )

    def token(self, asked):
        now = int(self.clock())
        claims = {
            "iss": self.issuer, "sub": self.user, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": asked["nonce"],
            "email": self.email, "email_verified": self.verified, "auth_time": int(self.auth_time or now),
        } | self.claims  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.forge(claims) if self.forge else self.signed(claims, self.keys[0])

    def signed(self, claims, key):
        return jwt.encode({"alg": self.algorithm, "kid": key.kid}, claims, key, algorithms=[self.algorithm])


def unread(answer):
    """An answer whose body is still to come, as over a network."""
    return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


def elliptic():
    return ECKey.generate_key("P-256", {"kid": "curve"})


def segment(content):
    text = json.dumps(content).encode() if not isinstance(content, bytes) else content
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def unsigned(claims):
    """A token that says that it needs no signature."""
    return f"{segment({'alg': 'none', 'kid': 'first'})}.{segment(claims)}."


def keyed_with(public):
    """A token signed with the public key as if it were a shared secret, by hand: libraries refuse to."""

    def forge(claims):
        head = f"{segment({'alg': 'HS256', 'kid': 'first'})}.{segment(claims)}"
        return f"{head}.{segment(hmac.digest(public, head.encode(), 'sha256'))}"

    return forge


def shared():
    """A key set's entry that no public set may hold."""
    return OctKey.generate_key(256, {"kid": "first"})


def serve(shop, issuer=None, clock=None, **oidc):
    """A server that knows the provider, and the provider."""
    clock = clock or Clock()
    issuer = issuer or Issuer(clock)
    given = {"issuer": issuer.issuer, "client_id": CLIENT, "client_secret": SECRET, "origin": f"http://{HOST}"}
    from perdure.web.server.oidc.settings import OidcSettings

    chosen = OidcSettings(**{**given, "label": "Example login", **oidc})
    return Served(shop, clock=clock, transport=issuer.transport, oidc=chosen), issuer


class Traveller(Browser):
    """Somebody whose browser goes to the provider and back; strict cookies stay at home on the way back."""

    def __init__(self, served, issuer, name=""):
        super().__init__(served, name)
        self.served, self.issuer = served, issuer

    def leave(self, path="/oidc/sign-in", data=None):
        """Where the provider is, as the page says that leads there."""
        self.renew("/account" if self.get("/account").status_code == 200 else "/sign-in")
        answer = self.post(path, data or {})
        return answer, link(answer)

    def come_back(self, query):
        """The answer to coming back; as a request from another site it carries no strict cookie."""
        strict = [cookie for cookie in self.client.cookies.jar if not cookie.name.endswith("-oidc")]
        for cookie in strict:
            self.client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
        answer = self.client.get("/oidc/callback", params=query, headers={"sec-fetch-site": "cross-site"})
        given = {cookie.name for cookie in self.client.cookies.jar}
        for cookie in strict:
            if cookie.name not in given:
                self.client.cookies.jar.set_cookie(cookie)
        return answer

    def cut(self):
        """Lose every cookie but that of the way."""
        for cookie in [one for one in self.client.cookies.jar if not one.name.endswith("-oidc")]:
            self.client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

    def travel(self, path="/oidc/sign-in", data=None):
        """All the way there and back; the last answer."""
        answer, address = self.leave(path, data)
        assert address, answer.text
        return self.come_back(self.issuer.authorize(address)[0])

    def who(self):
        """The account that is signed in; empty without one."""
        answer = self.get("/api/v1/me")
        return answer.json()["name"] if answer.status_code == 200 else ""


def link(answer):
    """Where a page leads on to; empty where it does not."""
    found = _LINK.search(answer.text)
    return unescape(found.group(1)) if found else ""
