"""Policies that were ever in force, each kept by its digest; a change is a row of the ledger."""

import sqlite3

from perdure.workspace.ledger import append_row
from perdure.workspace.rows import governed_rows
from perdure.workspace.rulings import PolicyChange


def changes(connection: sqlite3.Connection) -> list[PolicyChange]:
    """Every change of the policy, oldest first."""
    return [
        PolicyChange(row["digest"], row["text"], row["origin"], row["actor"], row["time"], row["sequence"])
        for row in governed_rows(connection, "policies")
    ]


def in_force(connection: sqlite3.Connection) -> PolicyChange | None:
    """The newest one; None where none was entered yet."""
    found = changes(connection)
    return found[-1] if found else None


def enter(connection: sqlite3.Connection, text: str, digest: str, origin: str, actor: str) -> None:
    """Enter a policy, within the caller's transaction; nothing where it is in force already.

    Args:
        connection: To the workspace's database, in a transaction.
        text: The TOML text.
        digest: Of its limits.
        origin: "set" by somebody, or "found" in a file that was changed by hand.
        actor: Who set it, or who was at work when it was found.
    """
    now = in_force(connection)
    if now is None or now.digest != digest:
        values = {"digest": digest, "text": text, "origin": origin}
        append_row(connection, "policies", values, action="policy", actor=actor)
