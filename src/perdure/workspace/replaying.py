"""Every decision once more, in the order of the ledger: what the rules would have refused is a problem.

The triggers refuse it when it is written; this finds it whatever the triggers were at the time.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.workspace import ledger
from perdure.workspace.people import is_machine
from perdure.workspace.schema import GOVERNED_TABLES

Row = Mapping[str, Any]


@dataclass
class _State:
    """What stood when a row was written.

    Attributes:
        versions: From an id to number, parent and requester.
        reports: The latest report of a version.
        consents: The approvals of a version since its last rejection: (report, policy).
        roles: (name, role), names without capitals.
        granted: Whether anybody was ever granted a role.
        policy: The text of the policy in force.
        heads: What each alias holds.
        canaries: The event of the last row about an alias, and its canary's number.
        breaks: Who broke the glass, by its row; and what was to go live.
        strict: Whether the rules of this schema held already.
        kpis: The name of the KPI in each row.
        corrected: The rows that a later one corrects.
    """

    versions: dict[str, Row] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    consents: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    roles: set[tuple[str, str]] = field(default_factory=set)
    granted: bool = False
    policy: str = ""
    heads: dict[str, str] = field(default_factory=dict)
    canaries: dict[str, tuple[str, int]] = field(default_factory=dict)
    breaks: dict[int, Row] = field(default_factory=dict)
    strict: bool = True
    kpis: dict[int, str] = field(default_factory=dict)
    corrected: set[int] = field(default_factory=set)

    def name(self, version: str) -> str:
        found = self.versions.get(version)
        return f"v{found['number']}" if found else f"{version[:12]}…"

    def consented(self, version: str, policy: str | None = None) -> bool:
        report = self.reports.get(version)
        return any(one == report and policy in (None, other) for one, other in self.consents.get(version, ()))

    def askers(self, version: str) -> set[str]:
        """Who asked for a version, and for those below it that nobody consented to."""
        found = set()
        step = self.versions.get(version)
        while step is not None:
            found.add(_key(step["requester"]))
            below = self.versions.get(step["parent"] or "")
            ends = below is None or below["parent"] is None or self.consented(below["id"])
            step = below if self.strict and not ends else None
        return found

    def may(self, actor: str, role: str) -> bool:
        return not self.granted or (_key(actor), role) in self.roles


def check_decisions(connection: sqlite3.Connection) -> list[str]:
    """What the rules would have refused, in plain words; empty when nothing."""
    state, problems = _State(), list[str]()
    migrated = connection.execute("SELECT MAX(sequence) FROM ledger WHERE action = ?", (ledger.MIGRATE,)).fetchone()[0]
    for table, row in _rows(connection):
        state.strict = migrated is None or row["sequence"] > migrated
        problems += [f"ledger row {row['sequence']}: {problem}" for problem in _CHECKS[table](state, row)]
    return problems


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[str, Row]]:
    """The rows of the governed tables, those that disagree with the ledger left out, by their sequence."""
    found = []
    for table in GOVERNED_TABLES:
        query = f"SELECT t.*, l.actor FROM {table} t JOIN ledger l ON l.sequence = t.sequence"  # noqa: S608
        found += [(table, dict(row)) for row in connection.execute(query)]
    yield from sorted(found, key=lambda one: int(one[1]["sequence"]))


def _key(name: str) -> str:
    return name.strip().casefold()


def _version(state: _State, row: Row) -> Iterator[str]:
    if row["requester"] != row["actor"]:
        yield f"v{row['number']} was entered by {row['actor']} for {row['requester']}"
    state.versions[row["id"]] = row


def _report(state: _State, row: Row) -> Iterator[str]:
    state.reports[row["version"]] = row["digest"]
    yield from ()


def _approval(state: _State, row: Row) -> Iterator[str]:
    version, approver, name = row["version"], row["approver"], state.name(row["version"])
    if approver != row["actor"]:
        yield f"a decision on {name} by {row['actor']} was written for {approver}"
    if not state.may(approver, "approver"):
        yield f"{approver} decided on {name} without being an approver"
    if row["decision"] == "rejected":
        state.consents.pop(version, None)
        return
    if is_machine(approver):
        yield f"{name} was approved by the program {approver}"
    if _key(approver) in state.askers(version):
        yield f"{name} was approved by {approver}, who asked for it"
    if row["report"] != state.reports.get(version):
        yield f"{name} was approved over a report that was not its latest"
    state.consents.setdefault(version, []).append((row["report"], row["policy"]))


def _move(state: _State, row: Row) -> Iterator[str]:
    alias, name = row["alias"], state.name(row["version"])
    if row["previous"] != state.heads.get(alias):
        yield f"{alias} moved to {name} from a version that it did not hold"
    state.heads[alias] = row["version"]
    if not state.strict:
        return
    found = state.versions.get(row["version"])
    needs = alias == "production" and row["kind"] == "promote" and found is not None and found["parent"] is not None
    if needs and not state.consented(row["version"], row["policy"]):
        yield f"{name} was promoted to production without consent"
    broken = state.breaks.get(row["sequence"] - 1, {})
    told = (broken.get("version"), broken.get("alias")) == (row["version"], alias)
    if row["kind"] == "break glass" and not told:
        yield f"{alias} was moved to {name} by a broken glass that nobody told of"
    if state.canaries.get(alias, ("", 0))[0] in ("start", "step"):
        yield f"{alias} was moved while it had a canary"


def _policy(state: _State, row: Row) -> Iterator[str]:
    another = row["origin"] == "set" or state.policy not in ("", row["text"])
    if another and not state.may(row["actor"], "admin"):
        yield f"{row['actor']} set the policy without being an admin"
    state.policy = row["text"]


def _grant(state: _State, row: Row) -> Iterator[str]:
    if not state.granted and (row["role"], row["change"]) != ("admin", "grant"):
        yield f"the first member, {row['member']}, was no admin"
    if not state.may(row["actor"], "admin"):
        yield f"{row['actor']} changed the roles of {row['member']} without being an admin"
    state.granted = True
    change = state.roles.add if row["change"] == "grant" else state.roles.discard
    change((_key(row["member"]), row["role"]))


def _break(state: _State, row: Row) -> Iterator[str]:
    state.breaks[row["sequence"]] = row
    if is_machine(row["actor"]) or not state.may(row["actor"], "operator"):
        yield f"{row['actor']} broke the glass and may not"


def _review(state: _State, row: Row) -> Iterator[str]:
    broken = state.breaks.get(row["broken"])
    if broken is None or _key(broken["actor"]) == _key(row["actor"]):
        yield f"{row['actor']} reviewed a broken glass of their own"


def _canary(state: _State, row: Row) -> Iterator[str]:
    event, number = state.canaries.get(row["alias"], ("", 0))
    runs = event in ("start", "step")
    if runs == (row["event"] == "start") or (runs and number != row["canary"]):
        yield f"canary {row['canary']} of {row['alias']} has a {row['event']} out of turn"
    state.canaries[row["alias"]] = (row["event"], row["canary"])


def _kpi(state: _State, row: Row) -> Iterator[str]:
    corrects = row["corrects"]
    if corrects is not None and (state.kpis.get(corrects) != row["name"] or corrects in state.corrected):
        yield f"the KPI {row['name']} corrects row {corrects}, which is another's or was corrected before"
    state.kpis[row["sequence"]] = row["name"]
    state.corrected |= set() if corrects is None else {corrects}


def _nothing(_state: _State, _row: Row) -> Iterator[str]:
    yield from ()


_CHECKS: Mapping[str, Callable[[_State, Row], Iterator[str]]] = {
    "versions": _version,
    "reports": _report,
    "approvals": _approval,
    "alias_moves": _move,
    "policies": _policy,
    "grants": _grant,
    "comments": _nothing,
    "breaks": _break,
    "reviews": _review,
    "canaries": _canary,
    "kpis": _kpi,
    "observations": _nothing,
}
