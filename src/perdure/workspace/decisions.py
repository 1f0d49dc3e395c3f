"""Reports, approvals and rejections: consent is given to a version, a report and a policy together."""

import sqlite3
from typing import Any

from perdure.errors import RefusedError
from perdure.workspace.ledger import append_row, governed_rows, rows_about
from perdure.workspace.records import APPROVED, CANDIDATE, REJECTED, Approval


def latest_report(connection: sqlite3.Connection, version: str) -> str | None:
    """The digest of the version's newest report; None if it has none."""
    rows = rows_about(connection, "reports", "version", version)
    return str(rows[-1]["digest"]) if rows else None


def last_decision(connection: sqlite3.Connection, version: str) -> dict[str, Any] | None:
    """The newest approval or rejection of a version, as a row; None if there is none."""
    rows = rows_about(connection, "approvals", "version", version)
    return rows[-1] if rows else None


def standings(connection: sqlite3.Connection) -> dict[str, str]:
    """The standing of every version on which somebody decided, in one word: approved, rejected or candidate."""
    reports = {row["version"]: row["digest"] for row in governed_rows(connection, "reports")}
    last = {row["version"]: row for row in governed_rows(connection, "approvals")}
    return {version: _standing(row, reports.get(version)) for version, row in last.items()}


def _standing(decision: dict[str, Any], report: str | None) -> str:
    if decision["decision"] == "rejected":
        return REJECTED
    return APPROVED if decision["report"] == report else CANDIDATE


def valid_approval(connection: sqlite3.Connection, version: str, policy: str) -> Approval | None:
    """The newest approval of exactly this version, its latest report and this policy, if none rejected it since."""
    report = latest_report(connection, version)
    for row in reversed(rows_about(connection, "approvals", "version", version)):
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
