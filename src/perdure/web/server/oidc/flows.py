"""Ways to the provider and back: each for one browser, once, for minutes. What the database holds opens nothing."""

import base64
import hmac
import json
from dataclasses import dataclass
from typing import Literal

from perdure.web.server.secrets import digest_secret, new_secret
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store

Purpose = Literal["enter", "join", "confirm"]
_SECONDS = 600.0


@dataclass(frozen=True)
class Flow:
    """Why somebody was sent to the provider.

    Attributes:
        purpose: To sign in, to use an invitation, or to confirm that it is them.
        login: The hash of the login that they had; empty without one.
        name: The account that it is about; empty where the provider shall say.
        key: The hash of the invitation, or what is confirmed.
        goal: Where they go on then, on this server.
    """

    purpose: Purpose
    login: str = ""
    name: str = ""
    key: str = ""
    goal: str = "/"


@dataclass(frozen=True)
class Started:
    """A way that was begun: what goes to the provider (state, nonce, the verifier's hash) and to the browser."""

    state: str
    nonce: str
    verifier: str
    browser: str


@dataclass(frozen=True)
class Returned:
    """A way that came back.

    Attributes:
        flow: Why it was begun.
        verifier: What proves to the provider that the same server asks (RFC 7636).
        nonce: The hash of the number that the token must name.
        created: When it was begun.
    """

    flow: Flow
    verifier: str
    nonce: str
    created: float


class Flows:
    """The ways that are under way."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self._store, self._settings = store, settings
        self._seconds = settings.oidc.flow_seconds if settings.oidc else _SECONDS

    @property
    def cookie(self) -> str:
        """The name of the cookie that binds a way to its browser."""
        return "__Host-perdure-oidc" if self._settings.secure else "perdure-plain-http-oidc"

    @property
    def seconds(self) -> int:
        """How long a way is open."""
        return int(self._seconds)

    def begin(self, flow: Flow) -> Started:
        """Remember why somebody goes; what they take along."""
        state, nonce, browser = new_secret(), new_secret(), new_secret()
        now = self._store.clock()
        kept = json.dumps({"login": flow.login, "name": flow.name, "key": flow.key, "goal": flow.goal})
        values = (digest_secret(state), digest_secret(browser), digest_secret(nonce), flow.purpose, kept)
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM flows WHERE expires <= ?", (now,))
            connection.execute("INSERT INTO flows VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, now, now + self._seconds))
        return Started(state, nonce, _verifier(browser, state), browser)

    def take(self, state: str, browser: str) -> Returned | None:
        """Why somebody went who comes back, once; None if another browser did, if it is over, or never was."""
        chosen = (digest_secret(state), digest_secret(browser), self._store.clock())
        with self._store.transaction() as connection:
            query = "SELECT * FROM flows WHERE state = ? AND browser = ? AND expires > ?"
            row = connection.execute(query, chosen).fetchone()
            connection.execute("DELETE FROM flows WHERE state = ? AND browser = ?", chosen[:2])
        if row is None:
            return None
        flow = Flow(row["purpose"], **json.loads(row["kept"]))
        return Returned(flow, _verifier(browser, state), row["nonce"], row["created"])


def _verifier(browser: str, state: str) -> str:
    """The code verifier (RFC 7636, 43 characters), made anew from what only this browser holds."""
    made = hmac.digest(browser.encode("utf-8", "surrogatepass"), b"perdure pkce\0" + state.encode(), "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()
