"""What every request passes before anything of it is understood: the host, the token, the size of the body."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from perdure.web.gateway.keys import Keys, admitted, bearer
from perdure.web.gateway.problems import AnswerError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_S = 30.0
_LENGTH_DIGITS = 15
_ONCE = (b"host", b"content-length", b"authorization", b"content-type")
_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Door:
    """An ASGI layer that lets in what holds a token and is not too large; everything else is refused here.

    Args:
        app: What stands behind it.
        keys: The tokens.
        body_bytes: The largest body.
        hosts: Values of the Host header that are answered; any when not given.
    """

    def __init__(self, app: App, keys: Keys, body_bytes: int, hosts: frozenset[str] | None = None) -> None:
        self._app, self._keys, self._body_bytes, self._hosts = app, keys, body_bytes, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass the start and end of the server on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        try:
            await self._admit(scope)
            body = await asyncio.wait_for(self._body(scope, receive), _BODY_S)
        except TimeoutError:
            return await _refuse(send, AnswerError(408, "timeout", "the request did not arrive in time"))
        except AnswerError as error:
            return await _refuse(send, error)
        return await self._app(scope, _replayed(body, receive), _with_headers(send))

    async def _admit(self, scope: Scope) -> None:
        names = [name for name, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _ONCE):
            raise AnswerError(400, "invalid_request", "a header that stands once is given twice")
        headers = dict(scope["headers"])
        if self._hosts is not None and headers.get(b"host", b"").decode("latin-1").lower() not in self._hosts:
            raise AnswerError(421, "wrong_host", "this server does not answer under this name")
        secret = bearer(headers.get(b"authorization"))
        holder = await asyncio.to_thread(admitted, self._keys, secret)
        scope.setdefault("state", {})["holder"] = holder

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > _LENGTH_DIGITS or int(length) > self._body_bytes:
            raise self._too_large()
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise AnswerError(400, "no_body", "the request ended before its body did")
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self._body_bytes:
                raise self._too_large()
        return body

    def _too_large(self) -> AnswerError:
        return AnswerError(413, "body_too_large", f"a body may have {self._body_bytes} bytes")


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _with_headers(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return add


async def _refuse(send: Send, error: AnswerError) -> None:
    body = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
    raw = [*((name.encode(), value.encode()) for name, value in headers.items()), *_HEADERS]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
