"""The gateway over HTTP: OpenAI's paths under /v1, each behind a token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from perdure.errors import PerdureError
from perdure.web.gateway.answers import CHAT, TEXT, events, listed, whole
from perdure.web.gateway.door import App, Door, Message, Receive, Scope, Send
from perdure.web.gateway.gateway import Gateway
from perdure.web.gateway.keys import Keys
from perdure.web.gateway.problems import AnswerError, translated
from perdure.web.gateway.shapes import ChatRequest, CompletionRequest, Feedback

PREFIX = "/v1"
_ID_LENGTH = 512
_GONE = 499  # nobody reads it

Conversation = Annotated[
    str | None,
    Header(alias="X-Perdure-Conversation", max_length=_ID_LENGTH, description="One conversation stays on one version"),
]
T = TypeVar("T")


class EventStream(StreamingResponse):
    """A stream of events whose source is closed when it ends, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str], headers: dict[str, str]) -> None:
        super().__init__(source, headers=headers | {"x-accel-buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()


def create_gateway_app(gateway: Gateway, keys: Keys, *, hosts: frozenset[str] | None = None) -> App:
    """The gateway as an application of its own.

    Args:
        gateway: What answers.
        keys: The tokens that are let in.
        hosts: Values of the Host header that are answered; any when not given.
    """

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        gateway.start()
        yield
        await gateway.close()

    app = FastAPI(
        title="perdure gateway", lifespan=life, docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}/openapi.json"
    )
    _add_answers(app, gateway)
    _add_lists(app, gateway)
    app.add_exception_handler(Exception, _failed)
    for kind in (PerdureError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _failed)
    return Door(app, keys, gateway.settings.limits.body_bytes, hosts)


def beside(pages: App, gateway: App) -> App:
    """One application of two: /v1 is the gateway's, everything else the pages'."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _live_together(pages, gateway, scope, receive, send)
        path = scope.get("path", "")
        return await (gateway if path == PREFIX or path.startswith(f"{PREFIX}/") else pages)(scope, receive, send)

    return both


async def _live_together(pages: App, gateway: App, scope: Scope, receive: Receive, send: Send) -> None:
    """The pages' start and end with the gateway's, which ends before the server is told that all is over."""
    heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    own = asyncio.ensure_future(gateway(dict(scope), heard.get, _silent))

    async def end() -> None:
        if not own.done():
            heard.put_nowait({"type": "lifespan.shutdown"})
            await own

    async def told(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown"):
            await end()
        await send(message)

    heard.put_nowait({"type": "lifespan.startup"})
    try:
        await pages(scope, receive, told)
    finally:
        await end()


async def _silent(_message: Any) -> None:
    pass


def _add_answers(app: FastAPI, gateway: Gateway) -> None:
    @app.post(f"{PREFIX}/chat/completions", response_model=None)
    async def chat(request: Request, body: ChatRequest, conversation: Conversation = None) -> Response:
        """Answer a conversation."""
        return await _answered(gateway, request, body, CHAT, conversation)

    @app.post(f"{PREFIX}/completions", response_model=None)
    async def complete(request: Request, body: CompletionRequest, conversation: Conversation = None) -> Response:
        """Continue a text."""
        return await _answered(gateway, request, body, TEXT, conversation)

    @app.post(f"{PREFIX}/feedback")
    async def feedback(body: Feedback) -> dict[str, Any]:
        """Say how good an answer was; it counts for the version that gave it."""
        await asyncio.wrap_future(gateway.score(body.id, body.score))
        return {"object": "feedback", "id": body.id, "score": body.score}


def _add_lists(app: FastAPI, gateway: Gateway) -> None:
    @app.get(f"{PREFIX}/models")
    async def models() -> dict[str, Any]:
        """Everything that is answered for: aliases, then versions."""
        found = await asyncio.to_thread(gateway.routing.served)
        return {"object": "list", "data": [listed(name, version) for name, version in found]}

    @app.get(f"{PREFIX}/models/{{name}}")
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        found = dict(await asyncio.to_thread(gateway.routing.served))
        if name not in found:
            raise AnswerError(404, "model_not_found", f"there is no model {name[:100]!r}", param="model")
        return listed(name, found[name])


async def _answered(
    gateway: Gateway, request: Request, body: ChatRequest | CompletionRequest, kind: str, conversation: str | None
) -> Response:
    asked = body.asked(gateway.settings.limits, gateway.seed())
    given = conversation or body.user
    # Two applications may give their users the same ids.
    whose = None if given is None else f"{request.state.holder.name}\0{given}"
    answer = await _unless_gone(request, gateway.begin(kind, body.model, asked, whose))
    headers = dict(answer.headers)
    if body.stream:
        return EventStream(events(answer, kind, usage=body.wants_usage), headers)
    return JSONResponse(await _unless_gone(request, whole(answer, kind)), headers=headers)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled when the client goes away.

    Raises:
        AnswerError: The client went away.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise AnswerError(_GONE, "client_gone", "the client went away")
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _failed(_request: Request, error: Exception) -> Response:
    told = _as_answer(error)
    return JSONResponse(told.body(), told.status, headers=told.headers())


def _as_answer(error: Exception) -> AnswerError:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = [str(part) for part in first["loc"][1:]]
        return AnswerError(
            400, "invalid_value", f"{'.'.join(where) or 'body'}: {first['msg']}", param=".".join(where) or None
        )
    if isinstance(error, HTTPException):
        return AnswerError(
            error.status_code, "not_found" if error.status_code == 404 else "invalid_request", str(error.detail)
        )
    return translated(error)
