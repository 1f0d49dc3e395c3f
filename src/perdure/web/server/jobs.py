"""The queue: long work that people ask for, kept in the database so that no crash loses it."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.errors import RefusedError, UnknownNameError
from perdure.web.server.store import Store
from perdure.web.server.words import _

QUEUED, RUNNING, DONE, FAILED, STOPPED = "queued", "running", "done", "failed", "stopped"
CHANGES, QUESTIONS = "changes", "questions"
LANES = (CHANGES, QUESTIONS)
SHOWN = ("facts", "task", "removal", "measure")
ATTEMPTS = 3
_WAITING_LIMIT = 200
_WAITING_EACH = 40
_KEPT_S = 86400.0
_FIELDS = (
    "id, place, lane, kind, requester, title, payload, state, stage, done, total, attempts, stop, created, changed, "
    "result, error"
)


class StopError(Exception):
    """Somebody asked that the job be stopped."""


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        id: What names it; unguessable.
        place: Its place in the queue of all time.
        lane: "changes" (one after the other) or "questions" (not held up by changes).
        kind: What it does: "facts", "task", "removal", "measure", "ask", "compare", "verify" or "evidence".
        requester: Who asked.
        title: What was asked, in a few words.
        payload: The request as JSON.
        state: "queued", "running", "done", "failed" or "stopped".
        stage: What it is at, while it runs.
        done: How much of that stage is done.
        total: How much there is.
        attempts: How often it was begun.
        stop: Whether somebody asked that it stop.
        created: When it was asked, in seconds since 1970.
        changed: When it last moved.
        result: What came out, as JSON.
        error: Why it failed, in words.
    """

    id: str
    place: int
    lane: str
    kind: str
    requester: str
    title: str
    payload: Mapping[str, Any]
    state: str
    stage: str
    done: int
    total: int
    attempts: int
    stop: bool
    created: float
    changed: float
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether it will not move any more."""
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def share(self) -> float:
        """How much of its stage is done, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class Jobs:
    """The queue of one server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self, kind: str, payload: Mapping[str, Any], *, requester: str, title: str, data: bytes | None = None
    ) -> Job:
        """Put work at the end of the queue.

        Raises:
            RefusedError: Too much waits already.
        """
        identifier, now = secrets.token_hex(16), self._store.clock()
        lane = QUESTIONS if kind in ("ask", "compare", "verify", "evidence") else CHANGES
        with self._store.transaction() as connection:
            counts = "SELECT COUNT(*), COALESCE(SUM(requester = ?), 0) FROM jobs WHERE state IN ('queued', 'running')"
            waiting, own = connection.execute(counts, (requester,)).fetchone()
            if waiting >= _WAITING_LIMIT or own >= _WAITING_EACH:
                words = _("{waiting} requests wait already, {own} of them yours; wait until some are done")
                raise RefusedError(words.format(waiting=waiting, own=own))
            place = connection.execute("SELECT COALESCE(MAX(place), 0) + 1 FROM jobs").fetchone()[0]
            text = json.dumps(dict(payload), ensure_ascii=True)
            row = (identifier, place, lane, kind, requester, title[:200], text, data, QUEUED, now, now)
            connection.execute(
                "INSERT INTO jobs (id, place, lane, kind, requester, title, payload, data, state, created, changed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return self.get(identifier)

    def get(self, identifier: str) -> Job:
        """The job of an id.

        Raises:
            UnknownNameError: There is none.
        """
        row = self._store.row(f"SELECT {_FIELDS} FROM jobs WHERE id = ?", identifier)  # noqa: S608 - own names
        if row is None:
            raise UnknownNameError("request", identifier[:40], [])
        return _job(row)

    def newest(self, limit: int = 50, *, kinds: tuple[str, ...] = SHOWN) -> list[Job]:
        """The newest jobs of some kinds, the newest first."""
        marks = ",".join("?" * len(kinds))
        query = f"SELECT {_FIELDS} FROM jobs WHERE kind IN ({marks}) ORDER BY place DESC LIMIT ?"  # noqa: S608
        return [_job(row) for row in self._store.rows(query, *kinds, limit)]

    def ahead(self, job: Job) -> int:
        """How many jobs of its lane come before it."""
        query = "SELECT COUNT(*) AS found FROM jobs WHERE lane = ? AND place < ? AND state IN ('queued', 'running')"
        row = self._store.row(query, job.lane, job.place)
        return int(row["found"]) if row else 0

    def data(self, identifier: str) -> bytes:
        """The file that came with a job."""
        row = self._store.row("SELECT data FROM jobs WHERE id = ?", identifier)
        return bytes(row["data"]) if row and row["data"] is not None else b""

    def stop(self, identifier: str) -> None:
        """Ask that a job stop: at once where it waits, at its next step where it runs."""
        now = self._store.clock()
        with self._store.transaction() as connection:
            query = "UPDATE jobs SET state = ?, changed = ? WHERE id = ? AND state = ?"
            connection.execute(query, (STOPPED, now, identifier, QUEUED))
            connection.execute("UPDATE jobs SET stop = 1 WHERE id = ? AND state = ?", (identifier, RUNNING))

    # For the worker

    def recover(self, lane: str) -> int:
        """Put back what a worker of this lane left when it died; how many. Only for the one worker of the lane.

        What killed its worker three times is given up.
        """
        now = self._store.clock()
        with self._store.transaction() as connection:
            values = (FAILED, "the worker died three times while it was at this", now, lane, RUNNING, ATTEMPTS)
            connection.execute(
                "UPDATE jobs SET state = ?, error = ?, changed = ? WHERE lane = ? AND state = ? AND attempts >= ?",
                values,
            )
            query = "UPDATE jobs SET state = ?, changed = ? WHERE lane = ? AND state = ?"
            return connection.execute(query, (QUEUED, now, lane, RUNNING)).rowcount

    def take(self, lane: str) -> Job | None:
        """The job that comes next, marked as running; None when nothing waits."""
        with self._store.transaction() as connection:
            query = "SELECT id FROM jobs WHERE lane = ? AND state = ? ORDER BY place LIMIT 1"
            row = connection.execute(query, (lane, QUEUED)).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE jobs SET state = ?, attempts = attempts + 1, changed = ? WHERE id = ?",
                (RUNNING, self._store.clock(), row["id"]),
            )
        return self.get(row["id"])

    def report(self, identifier: str, stage: str, done: int, total: int) -> None:
        """Say how far a job is.

        Raises:
            StopError: Somebody asked that it stop.
        """
        values = (stage[:200], done, total, self._store.clock(), identifier)
        self._store.write("UPDATE jobs SET stage = ?, done = ?, total = ?, changed = ? WHERE id = ?", *values)
        row = self._store.row("SELECT stop FROM jobs WHERE id = ?", identifier)
        if row is None or row["stop"]:
            raise StopError

    def note(self, identifier: str, **found: Any) -> None:
        """Keep what is known already, so that a worker that takes over goes on from there."""
        with self._store.transaction() as connection:
            row = connection.execute("SELECT result FROM jobs WHERE id = ?", (identifier,)).fetchone()
            result = json.dumps({**json.loads(row["result"]), **found}, ensure_ascii=True)
            connection.execute("UPDATE jobs SET result = ? WHERE id = ?", (result, identifier))

    def finish(self, identifier: str, state: str, error: str = "") -> None:
        """Say how a job ended; the file that came with it goes."""
        values = (state, error[:4000], self._store.clock(), identifier)
        self._store.write("UPDATE jobs SET state = ?, error = ?, changed = ?, data = NULL WHERE id = ?", *values)

    def tidy(self) -> None:
        """Forget questions, with their answers, that are more than a day old."""
        limit = self._store.clock() - _KEPT_S
        self._store.write("DELETE FROM jobs WHERE kind = 'ask' AND changed < ? AND state <> 'running'", limit)


def _job(row: dict[str, Any]) -> Job:
    read = {name: json.loads(row[name]) for name in ("payload", "result")}
    return Job(**{**row, **read, "stop": bool(row["stop"])})
