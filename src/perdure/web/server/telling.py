"""While a server runs: what people do is told to whom `notify.toml` names, and emergencies past their time end."""

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
    """Every few seconds while open, in a thread of its own: end emergencies, send notices; no request waits for it."""
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(shop, over, look_s), name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(look_s)


def _tell(shop: Workspace, over: threading.Event, look_s: float) -> None:
    said = held = ""
    while not over.is_set():
        still = _end_expired(shop)
        if still and still != held:
            _log.warning("an emergency past its time could not be ended: %s", still)
        held = still
        now = _once(shop, over)
        if now and now != said:
            _log.warning("notices wait: %s", now)
        said = now
        over.wait(look_s)


def _end_expired(shop: Workspace) -> str:
    """Why an emergency past its time goes on, in words; empty when none does."""
    try:
        shop.end_expired()
    except PerdureError as error:
        return str(error)
    except Exception as error:
        _log.exception("emergencies could not be looked after")
        return str(error)
    return ""


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
