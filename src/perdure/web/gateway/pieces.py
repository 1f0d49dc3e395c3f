"""What answers a request, seen from the gateway: a source of pieces of text."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from perdure.web.gateway.shapes import Asked
from perdure.workspace.records import Version

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: What it adds.
        finish: Of the last piece: whether the answer ended by itself ("stop") or was cut off ("length").
        asked_tokens: Of the last piece: tokens of the request.
        tokens: Of the last piece: tokens of the answer.
    """

    text: str
    finish: Finish | None = None
    asked_tokens: int = 0
    tokens: int = 0


class Source(Protocol):
    """Something that answers for versions."""

    def pieces(self, version: Version, asked: Asked) -> AsyncGenerator[Piece]:
        """The answer, piece by piece; only the last one has `finish`. Closing it ends the work.

        Raises:
            AnswerError: The request cannot be answered, here or now.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...
