"""The rows of governed tables, each read and checked against the ledger once: they only grow, so memory keeps them.

What was checked stays true in memory whatever happens to the file; `verify` reads the file itself.
"""

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from perdure.errors import IntegrityError
from perdure.workspace.ledger import JOINED, disagreement

Row = dict[str, Any]


@dataclass
class _Kept:
    """The checked rows of one table.

    Attributes:
        rows: By their sequence.
        places: From a column to where the rows with each of its values stand.
    """

    rows: list[Row] = field(default_factory=list)
    places: dict[str, dict[Any, list[int]]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return int(self.rows[-1]["sequence"]) if self.rows else 0

    def add(self, fresh: Iterable[Row]) -> None:
        for row in fresh:
            for column, places in self.places.items():
                places.setdefault(row[column], []).append(len(self.rows))
            self.rows.append(row)

    def about(self, column: str, value: Any) -> list[Row]:
        if column not in self.places:
            places = self.places.setdefault(column, {})
            for place, row in enumerate(self.rows):
                places.setdefault(row[column], []).append(place)
        return [self.rows[place] for place in self.places[column].get(value, ())]


class KeptRows:
    """The checked rows of one database, shared by its connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, _Kept] = {}

    def all(self, connection: sqlite3.Connection, table: str) -> list[Row]:
        """Every row of a table, oldest first."""
        with self._lock:
            kept, fresh = self._refreshed(connection, table)
            return [*kept.rows, *fresh]

    def about(self, connection: sqlite3.Connection, table: str, column: str, value: Any) -> list[Row]:
        """The rows with a value in a column, oldest first."""
        with self._lock:
            kept, fresh = self._refreshed(connection, table)
            return [*kept.about(column, value), *(row for row in fresh if row[column] == value)]

    def _refreshed(self, connection: sqlite3.Connection, table: str) -> tuple[_Kept, list[Row]]:
        """What is kept of a table, and the rows of a transaction that is not committed and may be taken back."""
        kept = self._tables.setdefault(table, _Kept())
        if kept.rows and not _follows(connection, kept):
            kept = self._tables[table] = _Kept()  # another database was put in the place of the one that was read
        fresh = _checked(connection, table, kept.last)
        if connection.in_transaction:
            return kept, fresh
        kept.add(fresh)
        return kept, []


class Connection(sqlite3.Connection):
    """A connection with what was read of its database.

    Attributes:
        kept: Shared by all connections to one database.
    """

    kept: KeptRows


def governed_rows(connection: sqlite3.Connection, table: str) -> list[Row]:
    """The rows of a governed table in their order, with `time` and `actor`, each checked against the ledger.

    Raises:
        IntegrityError: A row is not what the ledger says, or the ledger does not know it.
    """
    return _kept(connection).all(connection, table)


def rows_about(connection: sqlite3.Connection, table: str, column: str, value: str) -> list[Row]:
    """The rows of a governed table about one version or alias, as by `governed_rows`.

    All rows of the table are checked: one whose own column was damaged must not just drop out.
    """
    return _kept(connection).about(connection, table, column, value)


def _kept(connection: sqlite3.Connection) -> KeptRows:
    return connection.kept if isinstance(connection, Connection) else KeptRows()


def _follows(connection: sqlite3.Connection, kept: _Kept) -> bool:
    """Whether the database is still the one that was read: its ledger has the last row that is kept."""
    row = connection.execute("SELECT hash FROM ledger WHERE sequence = ?", (kept.last,)).fetchone()
    return row is not None and row[0] == kept.rows[-1]["entry_hash"]


def _checked(connection: sqlite3.Connection, table: str, last: int) -> list[Row]:
    query = JOINED.format(table=table, where="t.sequence > ?")
    rows = [dict(row) for row in connection.execute(query, (last,))]
    for row in rows:
        problem = disagreement(table, row)
        if problem:
            raise IntegrityError(f"{problem}. Somebody changed the database; run verify")
    return rows
