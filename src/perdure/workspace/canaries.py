"""Canaries: a share of an alias's requests goes to a candidate, step by step, until it is promoted or falls back."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from perdure.content import canonical_json
from perdure.errors import WorkspaceError
from perdure.governance.canary import CanaryPlan
from perdure.workspace.ledger import append_row
from perdure.workspace.releases import Canary, CanaryStep
from perdure.workspace.rows import governed_rows


def canaries(connection: sqlite3.Connection, alias: str | None = None) -> list[Canary]:
    """Every canary of one alias or of all, oldest first, with its steps."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in governed_rows(connection, "canaries"):
        if alias in (None, row["alias"]):
            found.setdefault(row["canary"], []).append(row)
    return [_canary(rows) for rows in found.values()]


def _canary(rows: list[dict[str, Any]]) -> Canary:
    first = rows[0]
    steps = [CanaryStep(row["event"], row["weight"], row["reason"], row["actor"], row["time"]) for row in rows]
    plan = CanaryPlan.model_validate(json.loads(first["plan"]))
    return Canary(first["canary"], first["alias"], first["stable"], first["candidate"], plan, tuple(steps))


def running(connection: sqlite3.Connection, alias: str) -> Canary | None:
    """The canary that the alias has now, if any."""
    found = canaries(connection, alias)
    return found[-1] if found and found[-1].running else None


def start(connection: sqlite3.Connection, alias: str, pair: tuple[str, str], plan: CanaryPlan, actor: str) -> None:
    """Write that a canary begins, within the caller's transaction.

    Args:
        connection: To the workspace's database, in a transaction.
        alias: Whose requests are shared out.
        pair: The ids of the version that it holds and of the candidate.
        plan: Weights, hold, conditions.
        actor: Who starts it.

    Raises:
        WorkspaceError: One runs already.
    """
    open_one = running(connection, alias)
    if open_one is not None:
        raise WorkspaceError(f"{alias!r} has canary {open_one.number} already; end it first")
    number = 1 + max((canary.number for canary in canaries(connection)), default=0)
    values = {"canary": number, "alias": alias, "stable": pair[0], "candidate": pair[1]}
    text = canonical_json(plan.model_dump(mode="json"))
    _write(connection, {**values, "plan": text, "reason": ""}, "start", plan.weights[0], actor)


def go_on(
    connection: sqlite3.Connection, canary: Canary, event: str, *, weight: float, reason: str, actor: str
) -> None:
    """Write a step or the end of a canary, within the caller's transaction."""
    values = {
        "canary": canary.number,
        "alias": canary.alias,
        "stable": canary.stable,
        "candidate": canary.candidate,
        "plan": canonical_json(canary.plan.model_dump(mode="json")),
        "reason": reason,
    }
    _write(connection, values, event, weight, actor)


def _write(connection: sqlite3.Connection, values: Mapping[str, Any], event: str, weight: float, actor: str) -> None:
    row = {**values, "event": event, "weight": float(weight)}
    append_row(connection, "canaries", row, action="canary", actor=actor)
