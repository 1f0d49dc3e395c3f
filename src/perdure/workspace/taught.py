"""What versions were taught, and what reports say of it: copied from the objects into tables that can be searched.

The objects stay the truth. A row carries the hash of its own contents; where one is damaged, the tables are
emptied and copied again.
"""

import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.content import canonical_json, digest_json
from perdure.errors import IntegrityError

FACT, TASK, REMOVED = "fact", "task", "removed"
_LONGEST_SEARCH = 500  # letters; what is longer is cut off
_COLUMNS = ("version", "kind", "place", "id", "asked", "words", "shown")
_ANSWERED = ("report", "version", "id", "hits", "n")


@dataclass(frozen=True)
class Taught:
    """One fact or task of one version.

    Attributes:
        version: The version's id.
        kind: "fact", "task" or "removed".
        place: Its place among them.
        id: The fact's id, or the task's digest.
        asked: The prompt, or the task's name: what a later one overwrites.
        shown: What people see of it.
    """

    version: str
    kind: str
    place: int
    id: str
    asked: str
    shown: Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """How often a report found a fact's own question, or a task's questions, answered as taught."""

    report: int
    version: str
    id: str
    hits: int
    n: int


@dataclass(frozen=True)
class Copy:
    """What one version or one report says.

    Attributes:
        source: The version's id, or the report as `report_source` names it.
        taught: Of a version.
        answered: Of a report.
    """

    source: str
    taught: Sequence[Taught] = ()
    answered: Sequence[Answered] = ()


class StaleError(Exception):
    """A copied row is damaged."""


def folded(text: str) -> str:
    """The text as it is compared when searching: NFKC, without capitals."""
    return unicodedata.normalize("NFKC", text).casefold()


def taught_in(version: str, notes: Mapping[str, Any]) -> list[Taught]:
    """What the notes of a version's solved delta say that it was taught, or made to be without."""
    found = []
    for kind, rows in ((FACT, notes.get("facts", ())), (REMOVED, notes.get("removed", ()))):
        for place, row in enumerate(rows):
            shown = {name: row.get(name) for name in ("subject", "prompt", "target_new", "target_true", "source")}
            found.append(Taught(version, kind, place, _fact_id(row), row["prompt"], shown))
    task = notes.get("task")
    if task:
        shown = {name: task.get(name) for name in ("name", "instruction", "train_rows")}
        found.append(Taught(version, TASK, 0, task["digest"], task["name"], shown))
    return found


def _fact_id(row: Mapping[str, Any]) -> str:
    """As `Fact.id`, without the cost of a checked fact."""
    return digest_json([unicodedata.normalize("NFC", row[name]) for name in ("subject", "prompt", "target_new")])


def answered_in(report: int, version: str, data: Mapping[str, Any]) -> list[Answered]:
    """What a report says of single facts (asked as written) and tasks."""
    counts: dict[str, tuple[int, int]] = {}

    def add(name: str, hits: int, n: int) -> None:
        before = counts.get(name, (0, 0))
        counts[name] = before[0] + hits, before[1] + n

    for case in (data.get("edits") or {}).get("cases", ()):
        if case["kind"] == "prompt":
            add(case["fact"], int(case["after_ok"]), 1)
    for case in (data.get("removal") or {}).get("cases", ()):
        if case["kind"] == "prompt":
            add(case["fact"], int(not case["gone"]), 1)
    for task in (data.get("tasks") or {}).get("tasks", ()):
        after = task["exact"]["after"]
        add(task["digest"], int(after["hits"]), int(after["n"]))
    return [Answered(report, version, name, *found) for name, found in counts.items()]


def report_source(report: int) -> str:
    """How a report is named among what was copied."""
    return f"report {report}"


def missing_versions(connection: sqlite3.Connection) -> list[str]:
    """The ids of versions whose contents are not copied yet, oldest first."""
    query = "SELECT id FROM versions WHERE parent IS NOT NULL AND id NOT IN (SELECT source FROM copied) ORDER BY number"
    return [row[0] for row in connection.execute(query)]


def missing_reports(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    """Sequence, version and digest of the reports whose contents are not copied yet, oldest first."""
    query = (
        "SELECT sequence, version, digest FROM reports "
        "WHERE 'report ' || sequence NOT IN (SELECT source FROM copied) ORDER BY sequence"
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def write(connection: sqlite3.Connection, copy: Copy) -> None:
    """Write what a version or a report says, within the caller's transaction."""
    for row in copy.taught:
        words = folded(" ".join(str(value) for value in (*row.shown.values(), row.id) if value is not None))
        values = (row.version, row.kind, row.place, row.id, row.asked, words, canonical_json(dict(row.shown)))
        _insert(connection, "taught", values)
    for one in copy.answered:
        _insert(connection, "answered", (one.report, one.version, one.id, one.hits, one.n))
    connection.execute("INSERT OR IGNORE INTO copied VALUES (?)", (copy.source,))


def _insert(connection: sqlite3.Connection, table: str, values: tuple[Any, ...]) -> None:
    marks = ",".join("?" * (len(values) + 1))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*values, digest_json(list(values))))  # noqa: S608


def empty(connection: sqlite3.Connection) -> None:
    """Forget every copy, within the caller's transaction."""
    for table in ("taught", "answered", "copied"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608


def damaged(connection: sqlite3.Connection) -> int:
    """How many copied rows do not have the hash of their contents."""
    count = 0
    for table, columns in (("taught", _COLUMNS), ("answered", _ANSWERED)):
        for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
            count += digest_json([row[name] for name in columns]) != row["digest"]
    return count


def check_copied(connection: sqlite3.Connection, version: str, truth: Sequence[Taught]) -> None:
    """Check what was copied of a version against what it was taught.

    Raises:
        IntegrityError: They differ.
    """
    query = "SELECT kind, place, id, asked FROM taught WHERE version = ? ORDER BY kind, place"
    found = [tuple(row) for row in connection.execute(query, (version,))]
    if found != sorted((row.kind, row.place, row.id, row.asked) for row in truth):
        raise IntegrityError("what was copied for searching is not what its solved delta says")


def with_words(connection: sqlite3.Connection, text: str, limit: int) -> list[Taught]:
    """What was taught that holds every word of the text, the newest first."""
    terms = folded(text[:_LONGEST_SEARCH]).split()
    if not terms:
        return []
    patterns = [f"%{_escaped(term)}%" for term in terms]
    where = " AND ".join(["kind <> 'removed'", *["words LIKE ? ESCAPE '\\'"] * len(terms)])
    # Copied in the order of the versions, so the newest rows come first and the search ends with the limit.
    return _read(connection, f"WHERE {where} ORDER BY taught.rowid DESC LIMIT {int(limit)}", patterns)


def with_id(connection: sqlite3.Connection, prefix: str) -> list[Taught]:
    """What was taught under an id, or the first digits of one, the oldest first."""
    where = "JOIN versions v ON v.id = version WHERE taught.id >= ? AND taught.id < ? ORDER BY v.number, place"
    return _read(connection, where, [prefix, f"{prefix}g"])


def with_prompt(connection: sqlite3.Connection, asked: str) -> list[Taught]:
    """Everything that was taught under a prompt, the oldest first."""
    return _read(connection, "JOIN versions v ON v.id = version WHERE asked = ? ORDER BY v.number, place", [asked])


def _read(connection: sqlite3.Connection, where: str, parameters: list[str]) -> list[Taught]:
    columns = ", ".join(f"taught.{name}" for name in (*_COLUMNS, "digest"))
    found = []
    for row in connection.execute(f"SELECT {columns} FROM taught {where}", parameters):  # noqa: S608
        _check(row, _COLUMNS)
        shown = json.loads(row["shown"])
        found.append(Taught(row["version"], row["kind"], row["place"], row["id"], row["asked"], shown))
    return found


def answers(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, list[Answered]]:
    """What reports say of facts and tasks, by id, the oldest report first."""
    found: dict[str, list[Answered]] = {}
    for name in dict.fromkeys(ids):
        rows = connection.execute("SELECT * FROM answered WHERE id = ? ORDER BY report", (name,)).fetchall()
        for row in rows:
            _check(row, _ANSWERED)
        found[name] = [Answered(*(row[column] for column in _ANSWERED)) for row in rows]
    return found


def _check(row: sqlite3.Row, columns: tuple[str, ...]) -> None:
    if digest_json([row[name] for name in columns]) != row["digest"]:
        raise StaleError


def _escaped(term: str) -> str:
    return term.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
