"""How many requests may be under way; what is over the limit is sent away at once, with when to come back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perdure.web.gateway.problems import AnswerError

_LONGEST_S = 60.0
_SHARE = 0.2  # of the newest request in the running mean of times


class Room:
    """Counts requests under way. Used from one event loop.

    Args:
        limit: How many may be under way.
        at_once: How many of them are worked on at the same time.
        clock: Seconds that only rise.
    """

    def __init__(self, limit: int, *, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._at_once, self._clock = limit, at_once, clock
        self._usual_s = 1.0
        self.under_way = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count a request during the block.

        Raises:
            AnswerError: There are too many.
        """
        if self.under_way >= self._limit:
            wait = min(_LONGEST_S, self._usual_s * self.under_way / self._at_once)
            busy = f"{self.under_way} requests are under way, as many as this server takes; try again later"
            raise AnswerError(429, "too_many_requests", busy, retry_after=wait)
        self.under_way += 1
        started = self._clock()
        try:
            yield
        finally:
            self.under_way -= 1
            self._usual_s += _SHARE * (self._clock() - started - self._usual_s)
