"""The ledger: what happened, when and by whom, each row chained to the one before by its hash."""

import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from perdure.content import canonical_json, digest_json
from perdure.errors import IntegrityError, SettingError
from perdure.workspace.failpoints import Point, reach

_LONGEST_NAME = 200
_MOST_WORDS = 10
_SEARCHED = ("details", "actor", "action")

# The tables whose rows stand beside a ledger row: their columns, and the actions that write them.
GOVERNED: Mapping[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "versions": (("number", "id", "parent", "requester"), frozenset({"create", "commit"})),
    "reports": (("version", "digest"), frozenset({"report"})),
    "approvals": (
        ("version", "decision", "report", "policy", "approver", "comment"),
        frozenset({"approve", "reject"}),
    ),
    "alias_moves": (
        ("alias", "version", "previous", "kind", "policy"),
        frozenset({"promote", "rollback", "break glass"}),
    ),
    "policies": (("digest", "text", "origin"), frozenset({"policy"})),
    "grants": (("member", "role", "change"), frozenset({"grant", "withdraw"})),
    "comments": (("version", "text"), frozenset({"comment"})),
    "breaks": (("version", "alias", "reason", "expires"), frozenset({"emergency"})),
    "reviews": (("broken", "comment"), frozenset({"review"})),
    "canaries": (
        ("canary", "alias", "event", "stable", "candidate", "weight", "plan", "reason"),
        frozenset({"canary"}),
    ),
    "kpis": (
        ("name", "unit", "better", "version", "period_start", "period_end", "value", "n", "corrects"),
        frozenset({"kpi"}),
    ),
    "observations": (("alias", "version", "policy", "findings"), frozenset({"observe"})),
}
MIGRATE = "migrate"
RESERVED = frozenset(action for _, actions in GOVERNED.values() for action in actions) | {MIGRATE}
JOINED = (
    "SELECT t.*, l.sequence AS entry, l.time, l.actor, l.action, l.details, l.previous AS entry_previous, "
    "l.hash AS entry_hash FROM {table} t LEFT JOIN ledger l ON l.sequence = t.sequence "
    "WHERE {where} ORDER BY t.sequence"
)


_COUNTS = "SELECT " + ", ".join(  # noqa: S608
    f"(SELECT COUNT(*) FROM {table}) AS {table}_found, "  # noqa: S608
    f"(SELECT COUNT(*) FROM ledger WHERE action IN ({', '.join(map(repr, sorted(actions)))})) AS {table}_told"
    for table, (_, actions) in GOVERNED.items()
)


@dataclass(frozen=True)
class LedgerEntry:
    """One row of the ledger.

    Attributes:
        sequence: Its place, from 1 without gaps.
        time: UTC, ISO 8601, as the machine's clock said; the order is that of `sequence`.
        actor: Who did it.
        action: What was done, one word or two.
        details: The facts, JSON.
        previous: The hash of the row before; empty for the first.
        hash: sha256 over all of the above.
    """

    sequence: int
    time: str
    actor: str
    action: str
    details: Mapping[str, Any]
    previous: str
    hash: str

    def is_whole(self) -> bool:
        """Whether the row has the hash that its contents give."""
        return self.hash == _digest(self)


def now() -> str:
    """The time, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def checked_actor(actor: str) -> str:
    """The actor's name in its one spelling, so that four eyes cannot be one pair written twice.

    Raises:
        SettingError: Empty, over 200 characters, or with control characters.
    """
    name = unicodedata.normalize("NFKC", actor).strip()
    # Unassigned, control, format and surrogate characters could make two equal-looking names.
    odd = [letter for letter in name if unicodedata.category(letter).startswith("C")]
    if not name or odd or len(name) > _LONGEST_NAME:
        raise SettingError(f"an actor's name must have 1 to {_LONGEST_NAME} printable characters; given {actor!r}")
    return name


def plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `value` made of plain JSON types.

    Raises:
        SettingError: It holds something that JSON or UTF-8 cannot say.
    """
    text = canonical_json(dict(value))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingError(f"holds a character that UTF-8 cannot say: {error}") from error
    copied: dict[str, Any] = json.loads(text)
    return copied


def append(connection: sqlite3.Connection, action: str, details: Mapping[str, Any], actor: str) -> int:
    """Add a row at the end of the ledger, within the caller's transaction; its sequence number."""
    query = "SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1"
    last = connection.execute(query).fetchone()
    sequence, previous = (last["sequence"] + 1, last["hash"]) if last else (1, "")
    entry = LedgerEntry(sequence, now(), actor, action, plain_json(details), previous, "")
    connection.execute(
        "INSERT INTO ledger (sequence, previous, time, actor, action, details, hash) VALUES (?,?,?,?,?,?,?)",
        (sequence, previous, entry.time, actor, action, canonical_json(entry.details), _digest(entry)),
    )
    reach(Point.LEDGER_APPENDED)
    return sequence


def append_row(
    connection: sqlite3.Connection, table: str, values: Mapping[str, Any], *, action: str, actor: str
) -> int:
    """Add a row to a governed table together with its ledger row; the sequence number of both."""
    sequence = append(connection, action, values, actor)
    columns, _ = GOVERNED[table]
    marks = ",".join("?" * len(columns))
    connection.execute(
        f"INSERT INTO {table} (sequence, {', '.join(columns)}) VALUES (?, {marks})",  # noqa: S608
        (sequence, *(values[column] for column in columns)),
    )
    reach(Point.ROW_INSERTED)
    return sequence


def check_complete(connection: sqlite3.Connection) -> None:
    """Check that every governed table has as many rows as the ledger tells of.

    Raises:
        IntegrityError: Rows are gone or were added; what an alias holds would be wrong in silence.
    """
    # One statement, so that a row committed meanwhile is seen on both sides or on neither.
    counts = connection.execute(_COUNTS).fetchone()
    for table in GOVERNED:
        told, found = counts[f"{table}_told"], counts[f"{table}_found"]
        if told != found:
            raise IntegrityError(f"{table} has {found} rows where the ledger tells of {told}; run verify")


def disagreement(table: str, row: Mapping[str, Any]) -> str | None:
    """How a governed row differs from its ledger row, in words; None when it does not."""
    where = f"row {row['sequence']} of {table}"
    if row["entry"] is None:
        return f"{where} is unknown to the ledger"
    columns, actions = GOVERNED[table]
    try:
        chain = {"previous": row["entry_previous"], "hash": row["entry_hash"]}
        entry = _entry({**row, **chain, "sequence": row["entry"]})
    except ValueError:
        return f"{where}: its ledger row is unreadable"
    if entry.action not in actions or not entry.is_whole():
        return f"{where}: its ledger row was changed"
    said = {column: entry.details.get(column) for column in columns}
    if said != {column: row[column] for column in columns}:
        return f"{where} is not what the ledger says"
    return None


def entries(
    connection: sqlite3.Connection,
    limit: int | None = None,
    *,
    before: int | None = None,
    after: int = 0,
    words: str = "",
) -> list[LedgerEntry]:
    """The ledger's rows, oldest first; with a limit, the newest so many of those that are asked for.

    Raises:
        IntegrityError: A row's details are not JSON.
    """
    asked = [f"%{_literal(word)}%" for word in words.split()[:_MOST_WORDS] for _ in _SEARCHED]
    either = " OR ".join(f"{column} LIKE ? ESCAPE '!'" for column in _SEARCHED)
    held = f"AND ({either}) " * (len(asked) // len(_SEARCHED))
    query = (
        "SELECT * FROM ledger WHERE sequence > ? AND (? IS NULL OR sequence < ?) "  # noqa: S608 - fixed text
        f"{held}ORDER BY sequence DESC LIMIT ?"
    )
    rows = connection.execute(query, (after, before, before, *asked, -1 if limit is None else limit)).fetchall()
    try:
        return [_entry(dict(row)) for row in reversed(rows)]
    except ValueError as error:
        raise IntegrityError(f"the ledger holds an unreadable row: {error}; run verify") from error


def _literal(word: str) -> str:
    """A word with the signs escaped that LIKE reads otherwise."""
    return "".join(f"!{sign}" if sign in "!%_" else sign for sign in word)


def check_chain(connection: sqlite3.Connection, head: str | None = None) -> list[str]:
    """What is wrong with the chain, in plain words; empty when nothing is.

    Args:
        connection: To the workspace's database.
        head: A row's hash noted earlier outside the workspace, which must still be in the chain.
    """
    problems, previous, sequence, seen = [], "", 0, set()
    for row in connection.execute("SELECT * FROM ledger ORDER BY sequence"):
        sequence += 1
        try:
            whole = _entry(dict(row)).is_whole()
        except ValueError:
            whole = False
        if row["sequence"] != sequence:
            problems.append(f"ledger: row {sequence} is missing")
            sequence = row["sequence"]
        if not whole:
            problems.append(f"ledger: row {sequence} was changed; its hash does not match")
        if row["previous"] != previous:
            problems.append(f"ledger: row {sequence} does not follow the row before it")
        previous = row["hash"]
        seen.add(previous)
    if head is not None and head not in seen:
        problems.append(f"ledger: the row {head[:12]}… noted outside is gone; the ledger was cut or rewritten")
    return problems


def check_governed(connection: sqlite3.Connection, tables: Iterable[str] = tuple(GOVERNED)) -> list[str]:
    """Where the ledger and the tables beside it disagree, in both directions, in plain words."""
    problems = []
    for table in tables:
        _, actions = GOVERNED[table]
        joined = connection.execute(JOINED.format(table=table, where="1"))
        found = [disagreement(table, dict(row)) for row in joined]
        problems += [f"ledger: {problem}" for problem in found if problem]
        marks = ",".join("?" * len(actions))
        lost = connection.execute(
            f"SELECT sequence FROM ledger WHERE action IN ({marks}) "  # noqa: S608
            f"AND sequence NOT IN (SELECT sequence FROM {table})",
            sorted(actions),
        )
        problems += [f"ledger: row {row[0]} speaks of a row of {table} that is gone" for row in lost]
    return problems


def _entry(row: Mapping[str, Any]) -> LedgerEntry:
    details = json.loads(row["details"])
    if not isinstance(details, dict):
        raise ValueError("details must be a JSON object")
    texts = (row["time"], row["actor"], row["action"])
    return LedgerEntry(row["sequence"], *texts, details, row["previous"], row["hash"])


def _digest(entry: LedgerEntry) -> str:
    head = [entry.previous, entry.sequence, entry.time, entry.actor, entry.action]
    return digest_json([*head, entry.details])
