"""What every request passes before anything looks at it: host, pace, size and time of its body; and every answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from perdure.web.server.settings import ServerSettings
from perdure.web.server.throttle import Pace
from perdure.web.server.words import N_, _, choose, speaking

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": browsers would then send "Origin: null" with forms of our own.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
_WORDS = {
    400: N_("the request is not well formed"),
    408: N_("the body took too long to arrive"),
    413: N_("the body is larger than this address takes"),
    421: N_("this server does not answer to that name; start it with --host-name to add one"),
    429: N_("too many requests from this address; wait a minute"),
}
_UNIQUE = (b"host", b"content-length", b"authorization", b"origin", b"content-type")


class Shield:
    """An ASGI layer around the whole application.

    Attributes:
        large: Addresses whose bodies may be as large as a file.
    """

    def __init__(self, app: App, settings: ServerSettings, pace: Pace, large: frozenset[str]) -> None:
        self._app, self._settings, self._pace = app, settings, pace
        self.large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        with speaking(choose("", _headers(scope).get("accept-language", ""))):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Answer(send, self._always())
        status = self._refusal(scope)
        if status:
            await out.refuse(status)
            return
        body = _Body(receive, self._limit(scope), self._settings.body_seconds)
        out.body = body
        await self._app(scope, body.receive, out.send)
        if not out.started and body.broken:
            await out.refuse(body.broken)

    def _always(self) -> dict[str, str]:
        tls = {"strict-transport-security": "max-age=31536000"} if self._settings.secure else {}
        return {**_HEADERS, **tls}

    def _refusal(self, scope: Scope) -> int:
        """The status with which a request is refused by its head alone; 0 where it is not."""
        headers = _headers(scope)
        names = [name for name, _value in scope["headers"]]
        if any(names.count(name) > 1 for name in _UNIQUE):
            return 400
        if headers.get("host", "").lower() not in self._settings.hosts:
            return 421
        address = scope["client"][0] if scope.get("client") else "unknown"
        if not self._pace.allows(address, writes=scope["method"] not in SAFE):
            return 429
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            return 400
        return 413 if int(length) > self._limit(scope) else 0

    def _limit(self, scope: Scope) -> int:
        large = scope["path"] in self.large and scope["method"] not in SAFE
        return self._settings.upload_bytes if large else self._settings.body_bytes


class _Body:
    """The body of a request as it arrives, counted and timed."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._left = receive, limit
        self._end = time.monotonic() + seconds
        self._whole = False
        self.broken = 0

    async def receive(self) -> Message:
        if self.broken:
            return {"type": "http.disconnect"}
        if self._whole:  # what comes now says only that the browser went away
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.001, self._end - time.monotonic()))
        except TimeoutError:
            return self._break(408)
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        return self._break(413) if self._left < 0 else message

    def _break(self, status: int) -> Message:
        self.broken = status
        return {"type": "http.disconnect"}


class _Answer:
    """An answer on its way out, with the headers that none may lack."""

    def __init__(self, send: Send, always: Mapping[str, str]) -> None:
        self._send, self._always = send, always
        self.body: _Body | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        if self.body is not None and self.body.broken and not self.started:
            await self.refuse(self.body.broken)
            return
        if self.started and message["type"] == "http.response.start":
            return
        if message["type"] == "http.response.start":
            self.started = True
            given = [(name, value) for name, value in message["headers"] if name.lower() != b"server"]
            names = {name.lower() for name, _value in given}
            own = [(name.encode(), value.encode()) for name, value in self._always.items()]
            # Only how long something may be kept is for a route to say.
            fixed = [(name, value) for name, value in own if name != b"cache-control" or name not in names]
            kept = [pair for pair in given if pair[0].lower() not in dict(fixed)]
            message = {**message, "headers": [*kept, *fixed]}
        elif self.body is not None and self.body.broken:
            return  # the refusal went out instead
        await self._send(message)

    async def refuse(self, status: int) -> None:
        self.started = True
        words = _(_WORDS.get(status, _WORDS[400]))
        more = {"retry-after": "60"} if status == 429 else {}
        headers = {**self._always, "content-type": "text/plain; charset=utf-8", "connection": "close", **more}
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": words.encode()})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
