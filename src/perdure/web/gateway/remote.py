"""Versions answered by other servers that speak OpenAI's protocol, such as vLLM; streams are passed through.

Where a request goes stands in `gateway.toml` alone. What is sent is written anew from what was checked, so that no
setting of the other server can be reached from outside.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from perdure.web.gateway.pieces import Finish, Piece
from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.room import Room
from perdure.web.gateway.settings import Backend, Limits
from perdure.web.gateway.shapes import Asked
from perdure.workspace.records import Version

_LINE_BYTES = 1 << 20
_ERROR_BYTES = 1 << 14
_SAID_LENGTH = 300


class Remote:
    """The servers of `gateway.toml`."""

    def __init__(self, backends: Mapping[str, Backend], limits: Limits) -> None:
        self._backends, self._seconds = backends, limits.seconds
        self._keys = {version: backend.key() for version, backend in backends.items()}
        self._room = Room(limits.elsewhere, at_once=limits.elsewhere)
        # No proxies or certificates from the environment, no redirects: what the file names is what is asked.
        self._client = httpx.AsyncClient(
            trust_env=False, follow_redirects=False, limits=httpx.Limits(max_connections=limits.elsewhere)
        )

    def answers_for(self, version: Version) -> bool:
        """Whether a server is named for the version."""
        return version.id in self._backends

    async def pieces(self, version: Version, asked: Asked) -> AsyncGenerator[Piece]:
        """The answer of the version's server, piece by piece."""
        backend = self._backends[version.id]
        name, deadline = backend.model or version.id, time.monotonic() + self._seconds
        with self._room.entered():
            try:
                async with self._client.stream("POST", **self._request(version.id, name, asked)) as response:
                    await _check_answer(response)
                    async with aclosing(_events(response, deadline)) as events:
                        async for piece in _read(events, name):
                            yield piece
            except httpx.TimeoutException as error:
                raise AnswerError(
                    504, "backend_timeout", f"the server of {version.name} did not answer in time"
                ) from error
            except httpx.HTTPError as error:
                raise AnswerError(
                    502, "backend_unreachable", f"the server of {version.name} cannot be reached"
                ) from error
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise AnswerError(502, "backend_failed", f"the server of {version.name} wrote no answer") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _request(self, version: str, name: str, asked: Asked) -> dict[str, Any]:
        backend, key = self._backends[version], self._keys[version]
        chat = [{"role": message.role, "content": message.content} for message in asked.messages]
        what = {"messages": chat} if chat else {"prompt": asked.prompt}
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        return {
            "url": f"{backend.url}/{'chat/' if chat else ''}completions",
            "json": {"model": name, **what, **asked.options, **streamed},
            "headers": {"accept": "text/event-stream"} | ({"authorization": f"Bearer {key}"} if key else {}),
            "timeout": httpx.Timeout(backend.silent_seconds, connect=backend.connect_seconds),
        }


async def _check_answer(response: httpx.Response) -> None:
    """Refuse what is no stream, in words that tell nothing of where it came from.

    Raises:
        AnswerError: The server refused the request, is busy, or answered something else.
    """
    if response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream"):
        return
    said = b""
    async for data in response.aiter_bytes():
        said += data
        if len(said) > _ERROR_BYTES:
            break
    if response.status_code in (400, 413, 422):
        raise AnswerError(400, "invalid_value", _message(said))
    if response.status_code in (429, 503):
        raise AnswerError(503, "backend_busy", "the server of this version is busy; try again later", retry_after=5)
    raise AnswerError(502, "backend_failed", f"the server of this version answered with status {response.status_code}")


def _message(said: bytes) -> str:
    try:
        found = json.loads(said)
        words = found.get("error", found)["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        words = "the server of this version refuses the request"
    return str(words)[:_SAID_LENGTH]


async def _events(response: httpx.Response, deadline: float) -> AsyncGenerator[dict[str, Any]]:
    """The JSON of each event until the stream says that it is done, and ends: then its connection serves again.

    Raises:
        AnswerError: It ended before.
        TimeoutError: The deadline passed, also where only signs of life still come.
    """
    done = False
    async with aclosing(_lines(response.aiter_bytes(), deadline)) as lines:
        async for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            done = done or data == b"[DONE]"
            if not done:
                yield _parsed(data)
    if not done:
        raise AnswerError(502, "backend_failed", "the server of this version broke off")


async def _lines(data: AsyncIterator[bytes], deadline: float) -> AsyncGenerator[bytes]:
    kept = b""
    async for part in data:
        if time.monotonic() > deadline:
            raise TimeoutError
        *whole, kept = (kept + part).split(b"\n")
        for line in whole:
            yield line
        if len(kept) > _LINE_BYTES:
            raise AnswerError(502, "backend_failed", "the server of this version wrote a line without end")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "error" in found:
        raise AnswerError(502, "backend_failed", "the server of this version failed while it answered")
    return found


async def _read(events: AsyncIterator[dict[str, Any]], name: str) -> AsyncIterator[Piece]:
    finish: str | None = None
    usage: dict[str, Any] = {}
    async for event in events:
        if event.get("model") != name:
            raise AnswerError(502, "backend_wrong", "the server of this version answers for another model")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            text = (choice["delta"].get("content") if "delta" in choice else choice.get("text")) or ""
            if text:
                yield Piece(text)
    ended: Finish = "length" if finish == "length" else "stop"
    yield Piece("", ended, int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
