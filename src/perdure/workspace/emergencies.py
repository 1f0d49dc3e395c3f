"""Breaking the glass: a version goes live without consent, loudly and for a limited time; somebody else reviews it."""

import sqlite3
from datetime import UTC, datetime, timedelta

from perdure.errors import RefusedError, SettingError
from perdure.workspace.ledger import append_row
from perdure.workspace.people import same
from perdure.workspace.rows import governed_rows
from perdure.workspace.rulings import Emergency

LONGEST = timedelta(days=7)


def checked_expiry(expires: datetime | timedelta, now: datetime) -> str:
    """When an emergency ends, UTC, ISO 8601.

    Raises:
        SettingError: In the past, further away than a week, or without a time zone.
    """
    end = now + expires if isinstance(expires, timedelta) else expires
    if end.tzinfo is None:
        raise SettingError(f"an emergency ends at a time with its zone; given {end.isoformat()}")
    if not now < end <= now + LONGEST:
        raise SettingError(f"an emergency ends within {LONGEST.days} days from now; given {end.isoformat()}")
    return end.astimezone(UTC).isoformat(timespec="microseconds")


def emergencies(connection: sqlite3.Connection) -> list[Emergency]:
    """Every time that the glass was broken, oldest first, with its review."""
    reviews = {row["broken"]: row for row in governed_rows(connection, "reviews")}
    return [_emergency(row, reviews.get(row["sequence"])) for row in governed_rows(connection, "breaks")]


def _emergency(row: dict[str, object], review: dict[str, object] | None) -> Emergency:
    told = {name: str(row[name]) for name in ("version", "alias", "actor", "reason", "time", "expires")}
    seen = {"reviewer": str(review["actor"]), "review": str(review["comment"])} if review else {}
    return Emergency(sequence=int(str(row["sequence"])), **told, **seen)


def review(connection: sqlite3.Connection, broken: int, comment: str, actor: str) -> None:
    """Write that somebody looked at an emergency, within the caller's transaction.

    Raises:
        SettingError: There is none of that number.
        RefusedError: It was reviewed, or the reviewer broke the glass.
    """
    found = next((one for one in emergencies(connection) if one.sequence == broken), None)
    if found is None:
        raise SettingError(f"no emergency has the number {broken}; see the ledger")
    if found.reviewer:
        raise RefusedError(f"emergency {broken} was reviewed by {found.reviewer} already")
    if same(found.actor, actor):
        raise RefusedError(f"{actor} broke the glass and cannot review it: four eyes are needed")
    append_row(connection, "reviews", {"broken": broken, "comment": comment}, action="review", actor=actor)
