"""The provider: where it is found, where browsers are sent, and what it says of who comes back."""

import base64
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx
from pydantic import BaseModel, ValidationError

from perdure.integrations.optional import optional
from perdure.web.server.access import DeniedError
from perdure.web.server.oidc.fetching import Fetcher, ProviderError, unreachable
from perdure.web.server.oidc.flows import Returned, Started
from perdure.web.server.oidc.settings import OidcSettings, trusted_address
from perdure.web.server.oidc.verifying import Evidence, Expected, UnknownKeyError, public_keys, verify
from perdure.web.server.words import _

_log = logging.getLogger("perdure.server")
_WELL_KNOWN = "/.well-known/openid-configuration"
_KEPT_S, _PAUSE_S = 3600.0, 10.0
_CODES = frozenset({"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"})


class Metadata(BaseModel):
    """What a provider says of itself (OpenID Connect Discovery 1.0, section 3); what is not named here is not used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods_supported: tuple[str, ...] = ("S256",)
    authorization_response_iss_parameter_supported: bool = False


class Provider:
    """The provider of one server."""

    def __init__(
        self, settings: OidcSettings, clock: Callable[[], float], transport: httpx.BaseTransport | None = None
    ) -> None:
        optional("authlib", "oidc")
        self.settings, self._clock = settings, clock
        self._fetcher = Fetcher(settings.patience_seconds, transport)
        self._lock = threading.Lock()
        self._said: Metadata | None = None
        self._keys: Any = None
        self._until = self._keys_until = self._silent_until = 0.0

    def address(self, started: Started, *, fresh: bool) -> str:
        """Where a browser is sent to sign in; with `fresh`, also who is signed in there already.

        Raises:
            ProviderError: It cannot be reached.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        anew = {"prompt": "login", "max_age": "0"} if fresh else {}
        scope = "openid email" if self.settings.claim == "email" else "openid email profile"
        made: str = prepare_grant_uri(
            self._metadata().authorization_endpoint,
            self.settings.client_id,
            "code",
            redirect_uri=self.settings.redirect,
            scope=scope,
            state=started.state,
            nonce=started.nonce,
            code_challenge=create_s256_code_challenge(started.verifier),
            code_challenge_method="S256",
            **anew,
        )
        return made

    def check_sender(self, issuer: str | None) -> None:
        """Refuse an answer that names another provider (RFC 9207), or none where this one always does.

        Raises:
            DeniedError: It does.
        """
        due = self._metadata().authorization_response_iss_parameter_supported
        if (issuer is None and due) or (issuer is not None and issuer != self.settings.issuer):
            raise DeniedError(403, _("Another provider answered than the one that was asked. Start again."))

    def identify(self, code: str, returned: Returned) -> Evidence:
        """Who came back with a code; for a confirmation, only who signed in anew since it was begun.

        Raises:
            ProviderError: The provider cannot be reached.
            DeniedError: It does not take the code, or its token is not believed.
        """
        token = self._exchange(code, returned.verifier)
        since = returned.created if returned.flow.purpose == "confirm" else None
        expected = Expected(returned.nonce, self._clock(), since)
        try:
            return verify(token, self._key_set(), self.settings, expected)
        except UnknownKeyError:
            _log.info("the provider signs with a key that was not known; its keys are read anew")
        try:
            return verify(token, self._key_set(anew=True), self.settings, expected)
        except UnknownKeyError as error:
            words = _("The sign-in provider signs with a key that it does not publish. Start again.")
            raise DeniedError(403, words) from error

    def _exchange(self, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect,
            "code_verifier": verifier,
        }
        known = self._metadata()
        more, headers = self._credentials(known.token_endpoint_auth_methods_supported)
        status, found = self._fetcher.post(known.token_endpoint, {**form, **more}, headers)
        token = (found or {}).get("id_token")
        if status == httpx.codes.OK and isinstance(token, str):
            return token
        code_said = (found or {}).get("error")
        _log.warning(
            "the provider took no code: %s, %s", status, code_said if code_said in _CODES else "no known reason"
        )
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ProviderError(unreachable())
        raise DeniedError(
            403,
            _("The sign-in provider did not accept the sign-in. Start again; if that does not help, an administrator "
              "checks how this server is registered there."),
        )  # fmt: skip

    def _credentials(self, methods: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
        """The fields and the headers by which the provider knows this server (RFC 6749, 2.3.1)."""
        name, secret = self.settings.client_id, self.settings.client_secret
        if secret is None:
            return {"client_id": name}, {}
        plain = secret.get_secret_value()
        if "client_secret_basic" not in methods and "client_secret_post" in methods:
            return {"client_id": name, "client_secret": plain}, {}
        pair = base64.b64encode(f"{quote_plus(name)}:{quote_plus(plain)}".encode()).decode()
        return {}, {"authorization": f"Basic {pair}"}

    def _metadata(self) -> Metadata:
        """What the provider says of itself, read again after an hour; after a failure not at once."""
        with self._lock:
            now = self._clock()
            if self._said is None or now >= self._until:
                if now < self._silent_until:
                    raise ProviderError(unreachable())
                try:
                    found = self._fetcher.get(self.settings.issuer.rstrip("/") + _WELL_KNOWN)
                    self._said, self._until = self._checked(found), now + _KEPT_S
                except ProviderError:
                    self._silent_until = now + _PAUSE_S
                    raise
            return self._said

    def _checked(self, found: Mapping[str, Any]) -> Metadata:
        try:
            said = Metadata.model_validate(found)
        except ValidationError as error:
            raise ProviderError(unreachable()) from error
        addresses = (said.authorization_endpoint, said.token_endpoint, said.jwks_uri)
        safe = all(trusted_address(one, loopback=self.settings.loopback) for one in addresses)
        if said.issuer != self.settings.issuer or not safe or "S256" not in said.code_challenge_methods_supported:
            _log.warning("%s names another issuer, an address without TLS, or no S256", self.settings.issuer)
            raise ProviderError(unreachable())
        return said

    def _key_set(self, *, anew: bool = False) -> Any:
        address = self._metadata().jwks_uri
        with self._lock:
            if anew or self._keys is None or self._clock() >= self._keys_until:
                self._keys = public_keys(self._fetcher.get(address))
                self._keys_until = self._clock() + _KEPT_S
            return self._keys
