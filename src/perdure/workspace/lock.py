"""One writer at a time: a file lock that the system frees when its holder dies, and a ballast file."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perdure.errors import WorkspaceError
from perdure.workspace.ledger import now

BALLAST_BYTES = 4 << 20
LOCK_NAME = "workspace.lock"
BALLAST_NAME = "ballast"
_PAUSE_S = 0.02


class WriterLock:
    """The right to write to a workspace; held by one thread of one process at a time.

    Attributes:
        wait_s: How long to wait for another writer before giving up, in seconds.
    """

    def __init__(self, folder: Path, wait_s: float = 5.0) -> None:
        self._folder = folder
        self.wait_s = wait_s

    @contextmanager
    def held(self, action: str, actor: str, *, wait_s: float | None = None) -> Iterator[None]:
        """Hold the lock during the block.

        Raises:
            WorkspaceError: Another writer held it for longer than the wait; the message says who.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._folder / LOCK_NAME, flags, 0o600)
        try:
            self._acquire(handle, self.wait_s if wait_s is None else wait_s)
            holder = {"actor": actor, "action": action, "process": os.getpid(), "since": now()}
            os.ftruncate(handle, 0)
            with suppress(OSError):  # who holds it is a courtesy; a full disk must not forbid the lock
                os.pwrite(handle, json.dumps({**holder, "host": socket.gethostname()}).encode(), 0)
            yield
        finally:
            os.close(handle)

    def _acquire(self, handle: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise WorkspaceError(self._refusal(handle, wait_s)) from None
                time.sleep(_PAUSE_S)

    def _refusal(self, handle: int, wait_s: float) -> str:
        try:
            holder = json.loads(os.pread(handle, 4096, 0))
            who = (
                f"{holder['actor']} ({holder['action']}, process {holder['process']} on {holder['host']}, "
                f"since {holder['since']})"
            )
        except (ValueError, KeyError, TypeError):
            who = "another process"
        return f"{self._folder} is being written by {who}; waited {wait_s:g} s. Try again when it is done"


def keep_ballast(folder: Path) -> None:
    """Keep some megabytes aside, to be given up on a full disk; does nothing if they are there."""
    path = folder / BALLAST_NAME
    with suppress(OSError):
        if path.lstat().st_size == BALLAST_BYTES:
            return
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, bytes(BALLAST_BYTES))
        except OSError:
            path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def drop_ballast(folder: Path) -> None:
    """Give the kept megabytes back to the disk."""
    with suppress(OSError):
        (folder / BALLAST_NAME).unlink()
