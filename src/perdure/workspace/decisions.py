"""Reports, approvals and rejections: consent is given to a version, a report and a policy together."""

import sqlite3
from typing import Any

from perdure.errors import RefusedError
from perdure.workspace.ledger import append_row, governed_rows
from perdure.workspace.records import APPROVED, BASE, CANDIDATE, REJECTED, Approval


def latest_report(connection: sqlite3.Connection, version: str) -> str | None:
    """The digest of the version's newest report; None if it has none."""
    rows = governed_rows(connection, "reports", "t.version = ?", (version,))
    return str(rows[-1]["digest"]) if rows else None


def last_decision(connection: sqlite3.Connection, version: str) -> dict[str, Any] | None:
    """The newest approval or rejection of a version, as a row; None if there is none."""
    rows = governed_rows(connection, "approvals", "t.version = ?", (version,))
    return rows[-1] if rows else None


def status(connection: sqlite3.Connection, version: str, number: int) -> str:
    """The version's standing in one word."""
    last = last_decision(connection, version)
    if last is not None and last["decision"] == "rejected":
        return REJECTED
    if last is not None and last["report"] == latest_report(connection, version):
        return APPROVED
    return CANDIDATE if number else BASE


def valid_approval(connection: sqlite3.Connection, version: str, policy: str) -> Approval | None:
    """The newest approval of exactly this version, its latest report and this policy, if none rejected it since."""
    report = latest_report(connection, version)
    for row in reversed(governed_rows(connection, "approvals", "t.version = ?", (version,))):
        if row["decision"] == "rejected":
            return None
        if (row["report"], row["policy"]) == (report, policy):
            return Approval(
                version, row["report"], policy, row["approver"], row["comment"], row["time"], row["sequence"]
            )
    return None


def check_four_eyes(connection: sqlite3.Connection, version: str, actor: str) -> None:
    """Refuse an approver who asked for the version.

    Raises:
        RefusedError: The two names are the same, capitals aside.
    """
    rows = governed_rows(connection, "versions", "t.id = ?", (version,))
    if rows and rows[0]["requester"].casefold() == actor.casefold():
        raise RefusedError(
            f"{actor} asked for v{rows[0]['number']} and cannot approve it: four eyes are needed. "
            "Somebody else must approve"
        )


def decide(connection: sqlite3.Connection, values: dict[str, str | None], actor: str) -> None:
    """Write an approval or a rejection, within the caller's transaction.

    Args:
        connection: To the workspace's database, in a transaction.
        values: version, decision ("approved" or "rejected"), report, policy, comment.
        actor: Who decides.
    """
    action = "approve" if values["decision"] == "approved" else "reject"
    append_row(connection, "approvals", {**values, "approver": actor}, action=action, actor=actor)
