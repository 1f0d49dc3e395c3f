"""Reports, approvals and rejections: consent is given to a version, a report and a policy together."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from perdure.errors import RefusedError
from perdure.workspace.ledger import append_row
from perdure.workspace.people import same
from perdure.workspace.records import APPROVED, CANDIDATE, REJECTED
from perdure.workspace.releases import AliasMove
from perdure.workspace.rows import governed_rows, rows_about
from perdure.workspace.rulings import Approval, Consent, Rejection, Standing
from perdure.workspace.schema import LINE


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


def consents(connection: sqlite3.Connection, version: str, policy: str) -> list[Consent]:
    """Every approval of a version, oldest first, with what voids it under its latest report and this policy."""
    report = latest_report(connection, version)
    found: list[Consent] = []
    for row in rows_about(connection, "approvals", "version", version):
        if row["decision"] == "rejected":
            why = f"{row['actor']} rejected the version on {row['time'][:10]}"
            found = [Consent(one.approval, one.void or why) for one in found]
        else:
            found.append(Consent(_approval(row), _void(row, report, policy)))
    return found


def _approval(row: dict[str, Any]) -> Approval:
    return Approval(
        row["version"], row["report"], row["policy"], row["approver"], row["comment"], row["time"], row["sequence"]
    )


def _void(row: dict[str, Any], report: str | None, policy: str) -> str:
    """What differs from what was approved, in words; empty when nothing does."""
    changed = []
    if row["report"] != report:
        changed.append(f"the report changed (approved over {row['report'][:8]}…, now {(report or 'none')[:8]}…)")
    if row["policy"] != policy:
        changed.append(f"the policy changed (approved under {row['policy'][:8]}…, now {policy[:8]}…)")
    return " and ".join(changed)


def rejections(connection: sqlite3.Connection, version: str) -> list[Rejection]:
    """Every rejection of a version, oldest first."""
    return [
        Rejection(version, row["actor"], row["comment"], row["time"], row["sequence"])
        for row in rows_about(connection, "approvals", "version", version)
        if row["decision"] == "rejected"
    ]


def valid_approval(connection: sqlite3.Connection, version: str, policy: str) -> Approval | None:
    """The newest approval of exactly this version, its latest report and this policy, if none rejected it since."""
    return next((one.approval for one in reversed(consents(connection, version, policy)) if one.valid), None)


def standing(connection: sqlite3.Connection, version: str, policy: str, required: int) -> Standing:
    """Whether enough different people approve of a version, as it was measured, under this policy."""
    found = consents(connection, version, policy)
    given = distinct(one.approval.approver for one in found if one.valid)
    if len(given) >= required:
        return Standing(required, given)
    has = f"approved by {', '.join(given)} alone" if given else "no valid approval"
    void = "; ".join(f"{one.approval.approver}'s is void: {one.void}" for one in found if one.void)
    needs = f"{required} different people must approve" if required > 1 else "somebody must approve"
    return Standing(required, given, f"{has}{f' ({void})' if void else ''}; {needs}")


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each person once: capitals aside."""
    found: list[str] = []
    for name in names:
        if not any(same(name, other) for other in found):
            found.append(name)
    return tuple(found)


def check_four_eyes(connection: sqlite3.Connection, version: str, actor: str) -> None:
    """Refuse an approver who asked for the version, or for one below it that nobody approved.

    Raises:
        RefusedError: The two names are the same, capitals aside.
    """
    query = f"{LINE.format('?')} SELECT number, id, requester FROM line"  # noqa: S608
    for row in connection.execute(query, (version,)).fetchall():
        if same(str(row["requester"]), actor):
            below = "" if row["id"] == version else ", which this version stands on and nobody approved,"
            raise RefusedError(
                f"{actor} asked for v{row['number']}{below} and cannot approve it: four eyes are needed. "
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


def consented_since(connection: sqlite3.Connection, version: str, since: int, required: int) -> bool:
    """Whether so many people agreed over one report and policy after a row of the ledger, with no rejection since."""
    agreed: dict[tuple[str, str], list[str]] = {}
    enough = False
    for row in rows_about(connection, "approvals", "version", version):
        if row["decision"] == "rejected":
            agreed, enough = {}, False
            continue
        people = agreed.setdefault((row["report"], row["policy"]), [])
        people.append(row["approver"])
        enough = enough or (row["sequence"] > since and len(distinct(people)) >= required)
    return enough


def approvers_at(connection: sqlite3.Connection, move: AliasMove) -> tuple[str, ...]:
    """Who had approved a version over its report and under the policy of a move, when an alias moved to it."""
    reports = rows_about(connection, "reports", "version", move.version)
    report = next((row["digest"] for row in reversed(reports) if row["sequence"] < move.sequence), None)
    counted: list[str] = []
    for row in rows_about(connection, "approvals", "version", move.version):
        if row["sequence"] > move.sequence:
            break
        if row["decision"] == "rejected":
            counted.clear()
        elif row["report"] == report and move.policy in (None, row["policy"]):
            counted.append(row["approver"])
    return distinct(counted)
