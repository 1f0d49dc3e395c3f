"""The gateway: from a request to the version that answers it, and from the answer to what is kept of it."""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from perdure.web.gateway.embedded import Embedded
from perdure.web.gateway.pieces import Piece, Source
from perdure.web.gateway.problems import AnswerError, translated
from perdure.web.gateway.recorder import Recorder
from perdure.web.gateway.remote import Remote
from perdure.web.gateway.routing import Chosen, Routing
from perdure.web.gateway.settings import GatewaySettings, read_settings
from perdure.web.gateway.shapes import Asked
from perdure.web.gateway.steering import Steering
from perdure.web.gateway.traffic import ANSWERED, FAILED, GONE, REFUSED, Kind, Outcome, Traffic
from perdure.workspace import Workspace

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """An answer that has begun.

    Attributes:
        id: By which clients give feedback.
        created: When, in whole seconds since 1970.
        chosen: Who answers.
        pieces: The answer as it comes; closing it ends the work.
    """

    id: str
    created: int
    chosen: Chosen
    pieces: AsyncGenerator[Piece]

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that say which version answers."""
        said = {"x-perdure-version": self.chosen.version.name, "x-perdure-version-id": self.chosen.version.id}
        said |= {"x-perdure-alias": self.chosen.alias} if self.chosen.alias else {}
        return said | ({"x-perdure-canary": str(self.chosen.canary)} if self.chosen.canary else {})


class Gateway:
    """Answers requests for one workspace. Used from one event loop.

    Args:
        folder: The workspace's.
        settings: Those of its `gateway.toml` when not given.
        device: Where models run.
        draws: Draws the side of requests without a conversation, and seeds.
    """

    def __init__(
        self,
        folder: Path,
        settings: GatewaySettings | None = None,
        *,
        device: str = "cpu",
        draws: random.Random | None = None,
    ) -> None:
        self.settings = read_settings(folder) if settings is None else settings
        self.shop = Workspace.open(folder)
        self._draws = draws or random.Random(secrets.randbits(64))
        self.routing = Routing(self.shop.archive, unapproved=self.settings.serving.unapproved, draw=self._draws.random)
        self.embedded = Embedded(self.shop.archive, self.settings, device=device)
        self._remote = Remote(self.settings.backends, self.settings.limits)
        self.traffic = Traffic(folder)
        self.steering = Steering(self.shop, self.routing, self.traffic, self.settings.canary)
        self.recorder = Recorder(self.traffic, self.steering.look, pause_s=self.settings.canary.look_seconds)

    def start(self) -> None:
        """Begin to look after canaries, also before the first request."""
        self.recorder.start()

    def seed(self) -> int:
        """A seed for a request that names none."""
        return self._draws.getrandbits(31)

    async def begin(self, kind: str, model: str, asked: Asked, conversation: str | None) -> Answer:
        """The answer to a request, once its first piece is there.

        Args:
            kind: What its id begins with.
            model: An alias, or the name or id of a version.
            asked: The request.
            conversation: What it belongs to; one conversation stays on one version.

        Raises:
            AnswerError: There is none.
        """
        try:
            chosen = await asyncio.to_thread(self.routing.choose, model, conversation)
        except Exception as error:
            raise self._told(error) from error
        identifier, now = f"{kind}-{secrets.token_hex(16)}", time.time()
        pieces = self._watched(chosen, asked, identifier, now)
        first = await anext(pieces)  # what goes wrong before it can still be told by a status
        return Answer(identifier, int(now), chosen, _joined(first, pieces))

    def score(self, answer: str, score: float) -> "Future[None]":
        """Have it written how good a client found an answer; tells how that went."""
        return self.recorder.score(answer, score, time.time())

    async def close(self) -> None:
        """Write down what waits, and let go of models and connections."""
        await self.embedded.close()
        await self._remote.close()
        await asyncio.to_thread(self.recorder.close)
        self.traffic.close()
        self.routing.close()

    def _source(self, chosen: Chosen) -> Source:
        return self._remote if self._remote.answers_for(chosen.version) else self.embedded

    async def _watched(self, chosen: Chosen, asked: Asked, identifier: str, now: float) -> AsyncGenerator[Piece]:
        started, said, first_s = time.monotonic(), "", None
        kind: Kind | None = GONE
        last = Piece("")
        try:
            async with aclosing(self._source(chosen).pieces(chosen.version, asked)) as pieces:
                async for piece in pieces:
                    said += piece.text
                    first_s = time.monotonic() - started if first_s is None else first_s
                    last = piece
                    if piece.finish:
                        kind = REFUSED if self._is_refusal(said) else ANSWERED
                    yield piece
        except Exception as error:
            told = self._told(error)
            kind = FAILED if told.ours else None  # what the client did wrong says nothing about the version
            raise told from error
        finally:
            if kind is not None:
                outcome = Outcome(
                    id=identifier,
                    time=now,
                    alias=chosen.alias,
                    version=chosen.version.id,
                    canary=chosen.canary,
                    kind=kind,
                    seconds=time.monotonic() - started,
                    first_seconds=first_s,
                    asked_tokens=last.asked_tokens,
                    tokens=last.tokens,
                    texts=(asked.request, said) if self.settings.record.texts else None,
                )
                self.recorder.put(outcome)

    def _is_refusal(self, text: str) -> bool:
        begun = text.lstrip()
        return not begun or begun.startswith(self.settings.canary.phrases)

    def _told(self, error: Exception) -> AnswerError:
        told = translated(error)
        if told.ours:
            _LOG.error("a request was not answered: %s", error, exc_info=None if error is told else error)
        return told


async def _joined(first: Piece, rest: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
