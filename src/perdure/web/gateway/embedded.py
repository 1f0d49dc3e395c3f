"""Versions answered in process, by transformers: one request at a time in a thread, the others wait their turn."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

from perdure.web.gateway.pieces import Piece
from perdure.web.gateway.room import Room
from perdure.web.gateway.settings import GatewaySettings
from perdure.web.gateway.shapes import Asked
from perdure.web.gateway.shelf import Shelf
from perdure.workspace import Workspace
from perdure.workspace.archive import Archive
from perdure.workspace.records import Version

Tell = Callable[[Piece], None]


class Embedded:
    """The embedded default: no other program is needed."""

    def __init__(self, archive: Archive, settings: GatewaySettings, *, device: str = "cpu") -> None:
        self.shelf = Shelf(archive, settings.models, device=device)
        self._room = Room(settings.limits.waiting + 1)
        self._seconds = settings.limits.seconds
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="perdure-generation")

    async def pieces(self, version: Version, asked: Asked) -> AsyncGenerator[Piece]:
        """The answer of a version, piece by piece."""
        deadline = time.monotonic() + self._seconds
        with self._room.entered():
            held = await asyncio.wait_for(self.shelf.take(version), self._seconds)
            heard: asyncio.Queue[Piece | None] = asyncio.Queue()
            gone, loop = threading.Event(), asyncio.get_running_loop()

            def tell(piece: Piece) -> None:
                loop.call_soon_threadsafe(heard.put_nowait, piece)

            def finished() -> None:
                self.shelf.put_back(held)
                heard.put_nowait(None)

            work = self._worker.submit(_answer, held.shop, version, asked, tell, gone)
            # The thread may use the model for a token longer than the client waits: it says when it has done with it.
            work.add_done_callback(lambda _: loop.call_soon_threadsafe(finished))
            try:
                while (piece := await asyncio.wait_for(heard.get(), deadline - time.monotonic())) is not None:
                    yield piece
                work.result()
            finally:
                gone.set()
                work.cancel()

    async def close(self) -> None:
        """Let go of the models."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self.shelf.close()


def _answer(shop: Workspace, version: Version, asked: Asked, tell: Tell, gone: threading.Event) -> None:
    if gone.is_set():
        return
    from perdure.web.gateway.writing import write

    with shop.answering(version, asked.request) as by:
        write(by.model, by.tokenizer, asked, tell, gone.is_set)
