"""Rows of the ledger in a pack: their text, their chain, and what they say of one version."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perdure.content import canonical_json
from perdure.errors import IntegrityError
from perdure.workspace.ledger import LedgerEntry

_ROW: TypeAdapter[LedgerEntry] = TypeAdapter(LedgerEntry)


@dataclass(frozen=True)
class Decision:
    """An approval or a rejection, as the ledger has it.

    Attributes:
        decision: "approved" or "rejected".
        approver: Who decided.
        comment: Their words.
        time: UTC, ISO 8601.
        sequence: The ledger row.
        version: The version's id.
        report: The digest of the report that was seen; None for a rejection.
        policy: The digest of the policy that it was judged by; None for a rejection.
        void: Why an approval does not count for the pack's report and policy; empty when it does.
    """

    decision: str
    approver: str
    comment: str
    time: str
    sequence: int
    version: str
    report: str | None
    policy: str | None
    void: str = ""


def write_rows(entries: Sequence[LedgerEntry]) -> bytes:
    """The rows as JSON lines."""
    return "".join(f"{canonical_json(vars(entry))}\n" for entry in entries).encode()


def read_rows(data: bytes) -> list[LedgerEntry]:
    """The rows that JSON lines say.

    Raises:
        IntegrityError: A line is no row.
    """
    rows = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            rows.append(_ROW.validate_json(line, strict=True))
        except ValidationError as error:
            raise IntegrityError(f"line {number} is no row of a ledger: {error.errors()[0]['msg']}") from error
    return rows


def chain_problems(rows: Sequence[LedgerEntry], head: str) -> list[str]:
    """Where rows do not chain without gaps up to the head, in plain words; empty when they do."""
    problems = [f"row {row.sequence} was changed; its hash does not match" for row in rows if not row.is_whole()]
    for before, row in pairwise(rows):
        if row.sequence != before.sequence + 1:
            problems.append(f"after row {before.sequence} comes row {row.sequence}; rows are missing")
        elif row.previous != before.hash:
            problems.append(f"row {row.sequence} does not follow the row before it")
    if not rows:
        problems.append("it has no rows")
    elif rows[-1].hash != head:
        problems.append(f"its last row {rows[-1].sequence} is not the head that the manifest names")
    return problems


def extract(rows: Sequence[LedgerEntry], version: str) -> list[LedgerEntry]:
    """The rows from the one that made a version up to the last: all that was ever said of it, without gaps.

    Raises:
        IntegrityError: No row made it, or the rows do not chain.
    """
    start = next((place for place, row in enumerate(rows) if makes(row, version)), None)
    if start is None:
        raise IntegrityError(f"the ledger has no row that made version {version[:12]}…; run verify")
    found = list(rows[start:])
    problems = chain_problems(found, found[-1].hash)
    if problems:
        raise IntegrityError(f"ledger: {problems[0]}; run verify")
    return found


def makes(row: LedgerEntry, version: str) -> bool:
    """Whether a row entered a version."""
    return row.action in ("create", "commit") and row.details.get("id") == version


def latest_report(rows: Sequence[LedgerEntry], version: str) -> str | None:
    """The digest of the newest report that the rows name."""
    found = [row for row in rows if row.action == "report" and row.details.get("version") == version]
    return _text(found[-1].details.get("digest")) if found else None


def decisions(rows: Sequence[LedgerEntry], version: str, report: str, policy: str | None) -> list[Decision]:
    """Every decision on a version, oldest first, with what voids each approval.

    Args:
        rows: The rows since the version was made.
        version: Its id.
        report: The digest of its latest report.
        policy: The digest of the policy by which it is judged; None to leave policies out of account.
    """
    own = [row for row in rows if row.action in ("approve", "reject") and row.details.get("version") == version]
    rejected = [row for row in own if row.action == "reject"]
    requester = next((str(row.details.get("requester")) for row in rows if makes(row, version)), "")
    found = []
    for row in own:
        later = next((other for other in rejected if other.sequence > row.sequence), None)
        void = [] if row.action == "reject" else _voids(row.details, requester, report, policy)
        if later is not None and row.action == "approve":
            void.append(f"{later.actor} rejected the version later")
        found.append(_decision(row, " and ".join(void)))
    return found


def approvers(found: Sequence[Decision]) -> tuple[str, ...]:
    """Who approved validly, each person once."""
    names = {one.approver.casefold(): one.approver for one in found if one.decision == "approved" and not one.void}
    return tuple(names.values())


def _voids(details: Any, requester: str, report: str, policy: str | None) -> list[str]:
    """What differs from what was approved, in words."""
    void = []
    if details.get("report") != report:
        void.append("it was given over another report")
    if policy is not None and details.get("policy") != policy:
        void.append("it was given under another policy")
    if str(details.get("approver")).strip().casefold() == requester.strip().casefold():
        void.append("who approved had asked for the version")
    return void


def _decision(row: LedgerEntry, void: str) -> Decision:
    said = row.details
    return Decision(
        decision="approved" if row.action == "approve" else "rejected",
        approver=str(said.get("approver")),
        comment=str(said.get("comment")),
        time=row.time,
        sequence=row.sequence,
        version=str(said.get("version")),
        report=_text(said.get("report")),
        policy=_text(said.get("policy")),
        void=void,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
