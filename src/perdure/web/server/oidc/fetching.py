"""What a provider answers, within bounds: no redirects, a limited size, a limited time, a few at once."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from perdure.errors import PerdureError
from perdure.web.server.words import _

_LARGEST, _AT_ONCE = 256 << 10, 4


class ProviderError(PerdureError):
    """The provider cannot be reached, or answers what it must not."""


class Fetcher:
    """Asks a provider for JSON.

    Strangers can make this server ask, so what they can make it hold is limited here.
    """

    def __init__(self, patience: float, transport: httpx.BaseTransport | None = None) -> None:
        self._patience = patience
        self._client = httpx.Client(
            transport=transport,
            timeout=patience,
            follow_redirects=False,
            # A packed answer could unfold to any size.
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )
        self._room = threading.BoundedSemaphore(_AT_ONCE)

    def get(self, address: str) -> Mapping[str, Any]:
        """The object at an address.

        Raises:
            ProviderError: It cannot be had.
        """
        status, found = self._ask("GET", address)
        if status != httpx.codes.OK or found is None:
            raise ProviderError(unreachable())
        return found

    def post(
        self, address: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, Any] | None]:
        """The status and the object with which a form is answered; None for what is no object.

        Raises:
            ProviderError: There is no answer.
        """
        return self._ask("POST", address, data=dict(form), headers=dict(headers))

    def _ask(self, method: str, address: str, **more: Any) -> tuple[int, Mapping[str, Any] | None]:
        with self._place():
            try:
                with self._client.stream(method, address, **more) as answer:
                    return answer.status_code, _parsed(self._body(answer))
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
                raise ProviderError(unreachable()) from error

    def _body(self, answer: httpx.Response) -> bytes:
        end, found = time.monotonic() + self._patience, bytearray()
        for part in answer.iter_raw():
            found += part
            if len(found) > _LARGEST or time.monotonic() > end:
                raise ProviderError(unreachable())
        return bytes(found)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._room.acquire(timeout=self._patience):
            raise ProviderError(unreachable())
        try:
            yield
        finally:
            self._room.release()


def unreachable() -> str:
    """The words for a provider that does not answer as it should."""
    return _("The sign-in provider does not answer as it should. Try again in a minute, or sign in with a password.")


def _parsed(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
