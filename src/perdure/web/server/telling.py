"""Notices while a server runs: what people do in the browser is told to whom `notify.toml` names."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from perdure.errors import PerdureError
from perdure.integrations.delivering import send
from perdure.workspace import Workspace

_log = logging.getLogger("perdure.server")
_LOOK_S = 5.0


@contextmanager
def telling(shop: Workspace, *, look_s: float = _LOOK_S) -> Iterator[None]:
    """Send what the ledger says every few seconds while open, in a thread of its own; no request waits for it."""
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(shop, over, look_s), name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(look_s)


def _tell(shop: Workspace, over: threading.Event, look_s: float) -> None:
    said = ""
    while not over.is_set():
        now = _once(shop, over)
        if now and now != said:
            _log.warning("notices wait: %s", now)
        said = now
        over.wait(look_s)


def _once(shop: Workspace, over: threading.Event) -> str:
    """Why notices wait, in words; empty when none does."""
    try:
        found = send(shop, sleep=lambda seconds: _pause(over, seconds))
    except PerdureError as error:
        return str(error)
    except Exception as error:  # nothing that a receiver does ends the thread
        _log.exception("notices could not be sent")
        return str(error)
    return "; ".join(one.waiting for one in found if one.waiting)


def _pause(over: threading.Event, seconds: float) -> None:
    over.wait(seconds)
