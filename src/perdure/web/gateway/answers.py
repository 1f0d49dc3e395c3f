"""Answers in the shapes that OpenAI's clients read, whole or as a stream of events."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from perdure.web.gateway.gateway import Answer
from perdure.web.gateway.pieces import Piece
from perdure.web.gateway.problems import translated
from perdure.workspace.records import Version

CHAT, TEXT = "chatcmpl", "cmpl"
"""What the ids of answers begin with."""

_OBJECTS = {CHAT: ("chat.completion", "chat.completion.chunk"), TEXT: ("text_completion", "text_completion")}


async def whole(answer: Answer, kind: str) -> dict[str, Any]:
    """The body of an answer that is sent at once."""
    said, last = "", Piece("")
    async with aclosing(answer.pieces) as pieces:
        async for piece in pieces:
            said, last = said + piece.text, piece
    content = {"message": {"role": "assistant", "content": said}} if kind == CHAT else {"text": said}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": last.finish}
    return _head(answer, _OBJECTS[kind][0]) | {"choices": [choice], "usage": _usage(last)}


async def events(answer: Answer, kind: str, *, usage: bool) -> AsyncGenerator[str]:
    """The events of an answer that is streamed; one that breaks off ends with an error and without `[DONE]`."""
    head = _head(answer, _OBJECTS[kind][1])
    if kind == CHAT:
        yield _event(head | {"choices": [_choice({"delta": {"role": "assistant", "content": ""}})]})
    last = Piece("")
    try:
        async with aclosing(answer.pieces) as pieces:
            async for piece in pieces:
                last = piece
                if piece.text:
                    content = {"delta": {"content": piece.text}} if kind == CHAT else {"text": piece.text}
                    yield _event(head | {"choices": [_choice(content)]})
    except Exception as error:
        yield _event(translated(error).body())
        return
    yield _event(head | {"choices": [_choice({"delta": {}} if kind == CHAT else {"text": ""}, last.finish)]})
    if usage:
        yield _event(head | {"choices": [], "usage": _usage(last)})
    yield "data: [DONE]\n\n"


def listed(name: str, version: Version) -> dict[str, Any]:
    """An entry of the list of models."""
    created = int(datetime.fromisoformat(version.created).timestamp())
    told = {"version": version.name, "id": version.id, "status": version.status}
    return {"id": name, "object": "model", "created": created, "owned_by": "perdure", "perdure": told}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    chosen = answer.chosen
    told = {"version": chosen.version.name, "id": chosen.version.id, "alias": chosen.alias, "canary": chosen.canary}
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": chosen.version.name,
        "system_fingerprint": f"fp_{chosen.version.id[:12]}",
        "perdure": told,
    }


def _choice(content: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish}


def _usage(last: Piece) -> dict[str, int]:
    both = last.asked_tokens + last.tokens
    return {"prompt_tokens": last.asked_tokens, "completion_tokens": last.tokens, "total_tokens": both}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
