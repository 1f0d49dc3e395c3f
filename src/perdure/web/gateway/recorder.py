"""The thread that writes down what became of requests, and then looks after the canaries; no answer waits for it."""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from perdure.errors import PerdureError
from perdure.web.gateway.traffic import Outcome, Traffic

_LOG = logging.getLogger(__name__)
_WAITING = 10_000


@dataclass(frozen=True)
class _Score:
    answer: str
    score: float
    time: float
    done: "Future[None]" = field(default_factory=Future)


@dataclass(frozen=True)
class _Mark:
    last: bool
    done: "Future[None]" = field(default_factory=Future)


class Recorder:
    """Takes outcomes and scores from any thread, and writes them in their order.

    Args:
        traffic: Where to.
        after: Called after each writing, and every `pause_s` seconds without one.
        pause_s: How long to wait for something to write.
    """

    def __init__(self, traffic: Traffic, after: Callable[[], None], *, pause_s: float) -> None:
        self._traffic, self._after, self._pause_s = traffic, after, pause_s
        self._waiting: queue.Queue[Outcome | _Score | _Mark] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="perdure-traffic", daemon=True)
        self._starting = threading.Lock()

    def start(self) -> None:
        """Begin; does nothing when it began already."""
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Have an outcome written; counts for nothing when too many wait, so that answers never do."""
        self.start()
        try:
            self._waiting.put_nowait(outcome)
        except queue.Full:
            _LOG.error("an answer of %s was not counted: too many wait to be written", outcome.version[:12])

    def score(self, answer: str, score: float, time: float) -> "Future[None]":
        """Have a score written after all that was put before; tells how that went."""
        self.start()
        asked = _Score(answer, score, time)
        self._waiting.put(asked)
        return asked.done

    def flush(self) -> None:
        """Wait until all is written that was put, and the canaries were looked at after it."""
        self.start()
        mark = _Mark(last=False)
        self._waiting.put(mark)
        mark.done.result()

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread.is_alive():
            self._waiting.put(_Mark(last=True))
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            taken = self._take()
            self._write(taken)
            self._look()
            marks = [item for item in taken if isinstance(item, _Mark)]
            for mark in marks:
                mark.done.set_result(None)
            going = not any(mark.last for mark in marks)

    def _take(self) -> list[Outcome | _Score | _Mark]:
        taken: list[Outcome | _Score | _Mark] = []
        try:
            taken.append(self._waiting.get(timeout=self._pause_s))
            while True:
                taken.append(self._waiting.get_nowait())
        except queue.Empty:
            return taken

    def _write(self, taken: list[Outcome | _Score | _Mark]) -> None:
        outcomes = [item for item in taken if isinstance(item, Outcome)]
        try:
            if outcomes:
                self._traffic.add(outcomes)
        except sqlite3.Error:
            _LOG.exception("%d answers were not counted", len(outcomes))
        for item in taken:
            if isinstance(item, _Score):
                self._write_score(item)

    def _write_score(self, asked: _Score) -> None:
        try:
            self._traffic.score(asked.answer, asked.score, asked.time)
        except (PerdureError, sqlite3.Error) as error:
            asked.done.set_exception(error)
        else:
            asked.done.set_result(None)

    def _look(self) -> None:
        try:
            self._after()
        except Exception:
            _LOG.exception("the canaries could not be looked after; that is tried again")
