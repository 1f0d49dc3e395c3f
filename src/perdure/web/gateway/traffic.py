"""What is kept of the traffic: one row for each answer, with its version, outcome and times; words only if allowed.

The rows lie in `traffic.sqlite`, beside the workspace's own database and apart from it: nothing in them is a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perdure.web.gateway.problems import AnswerError
from perdure.web.side_database import SideDatabase

FILE_NAME = "traffic.sqlite"
Kind = Literal["answered", "refused", "failed", "gone"]
ANSWERED: Literal["answered"] = "answered"
REFUSED: Literal["refused"] = "refused"
FAILED: Literal["failed"] = "failed"
GONE: Literal["gone"] = "gone"

_TABLES = (
    f"""CREATE TABLE answers (
        sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time REAL NOT NULL, alias TEXT, version TEXT NOT NULL,
        canary INTEGER, outcome TEXT NOT NULL CHECK (outcome IN {(ANSWERED, REFUSED, FAILED, GONE)}),
        seconds REAL NOT NULL, first_seconds REAL, asked_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL)""",
    "CREATE INDEX answers_canaries ON answers (canary, version) WHERE canary IS NOT NULL",
    "CREATE INDEX answers_times ON answers (time)",
    """CREATE TABLE scores (
        sequence INTEGER PRIMARY KEY, answer TEXT NOT NULL UNIQUE REFERENCES answers (id), time REAL NOT NULL,
        score REAL NOT NULL CHECK (score BETWEEN 0 AND 1))""",
    """CREATE TABLE texts (
        sequence INTEGER PRIMARY KEY, answer TEXT NOT NULL UNIQUE REFERENCES answers (id), asked TEXT NOT NULL,
        said TEXT NOT NULL)""",
)
_RULES = tuple(
    f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    for table in ("answers", "scores", "texts")
    for event in ("UPDATE", "DELETE")
)
_ADD = (
    "INSERT INTO answers (id, time, alias, version, canary, outcome, seconds, first_seconds, asked_tokens, tokens) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# An answer that its client did not wait for says nothing about the version.
_JUDGED = "FROM answers LEFT JOIN scores ON scores.answer = answers.id WHERE outcome <> 'gone'"


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        id: Of the answer.
        time: When the request came, in seconds since 1970.
        alias: The alias that was asked for, if one was.
        version: The id of the version that answered.
        canary: The number of the alias's canary, if it had one.
        kind: "answered"; "refused": the model would not; "failed": the version or the server could not; "gone": the
            client did not wait.
        seconds: How long it took, waiting included.
        first_seconds: How long until the first piece; None if there was none.
        asked_tokens: Tokens of the request, where known.
        tokens: Tokens of the answer, where known.
        texts: Request and answer, where they may be kept.
    """

    id: str
    time: float
    alias: str | None
    version: str
    canary: int | None
    kind: Kind
    seconds: float
    first_seconds: float | None = None
    asked_tokens: int = 0
    tokens: int = 0
    texts: tuple[str, str] | None = None


@dataclass(frozen=True)
class Tally:
    """What a version did.

    Attributes:
        version: Its id.
        requests: Requests that it answered, or failed to.
        failures: Those of them that failed: errors, refusals and bad scores, as far as they count.
        since: Requests from the moment that was asked about on.
        seconds: The median time of those that were answered; None without any.
    """

    version: str
    requests: int = 0
    failures: int = 0
    since: int = 0
    seconds: float | None = None


class Traffic:
    """One SQLite file with a connection for each thread; its rows are never changed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        # NORMAL: what a power cut takes away of the last moments is counts, and no request waits for the disk.
        self._rows = SideDatabase(self.path, (_TABLES + _RULES,), synchronous="NORMAL")

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Keep what became of requests."""
        with self._rows.transaction() as connection:
            for found in outcomes:
                values = (found.id, found.time, found.alias, found.version, found.canary, found.kind)
                times = (found.seconds, found.first_seconds, found.asked_tokens, found.tokens)
                connection.execute(_ADD, (*values, *times))
                if found.texts is not None:
                    query = "INSERT INTO texts (answer, asked, said) VALUES (?, ?, ?)"
                    connection.execute(query, (found.id, *map(_utf8, found.texts)))

    def score(self, answer: str, score: float, time: float) -> None:
        """Keep how good a client found an answer.

        Raises:
            AnswerError: There is no such answer, or it has a score.
        """
        with self._rows.transaction() as connection:
            known = connection.execute("SELECT 1 FROM answers WHERE id = ?", (answer,)).fetchone()
            if known is None:
                raise AnswerError(404, "answer_not_found", "there is no answer with this id", param="id")
            query = "INSERT OR IGNORE INTO scores (answer, time, score) VALUES (?, ?, ?)"
            if connection.execute(query, (answer, time, score)).rowcount != 1:
                raise AnswerError(409, "answer_has_score", "this answer has a score already", param="id")

    def tally(self, canary: int, version: str, *, since: float, refusals: bool, bad_score: float) -> Tally:
        """What a version did in a canary.

        Args:
            canary: The canary's number.
            version: The version's id.
            since: A moment, in seconds since 1970.
            refusals: Whether a refusal to answer is a failure.
            bad_score: Scores below this are failures.
        """
        query = (
            f"SELECT COUNT(*) AS requests, COALESCE(SUM(answers.time >= :since), 0) AS since, "
            f"COALESCE(SUM(outcome = '{FAILED}' OR (:refusals AND outcome = '{REFUSED}') "
            f"OR COALESCE(score < :bad, 0)), 0) AS failures {_JUDGED} AND canary = :canary AND version = :version"
        )
        values = {"canary": canary, "version": version, "since": since, "refusals": refusals, "bad": bad_score}
        row = self._rows.connection().execute(query, values).fetchone()
        return Tally(version, row["requests"], row["failures"], row["since"], self._median(canary, version))

    def counts(self, *, since: float = 0.0) -> dict[tuple[str, str], int]:
        """How many answers of each kind each version gave since a moment: by version id and kind."""
        query = "SELECT version, outcome, COUNT(*) AS found FROM answers WHERE time >= ? GROUP BY version, outcome"
        rows = self._rows.connection().execute(query, (since,)).fetchall()
        return {(row["version"], row["outcome"]): row["found"] for row in rows}

    def close(self) -> None:
        """Close the connections of all threads."""
        self._rows.close()

    def _median(self, canary: int, version: str) -> float | None:
        among = f"FROM answers WHERE canary = ? AND version = ? AND outcome = '{ANSWERED}'"
        found = self._rows.connection().execute(f"SELECT COUNT(*) {among}", (canary, version)).fetchone()[0]
        if not found:
            return None
        query = f"SELECT seconds {among} ORDER BY seconds LIMIT 1 OFFSET ?"
        return float(self._rows.connection().execute(query, (canary, version, found // 2)).fetchone()[0])


def _utf8(text: str) -> str:
    """The text without what UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()
