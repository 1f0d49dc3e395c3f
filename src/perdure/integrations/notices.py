"""Notices: what the ledger says that somebody wants to hear of, as small documents."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from perdure.workspace.ledger import LedgerEntry

if TYPE_CHECKING:
    from perdure.workspace import Workspace

Event = Literal[
    "candidate ready",
    "approved",
    "rejected",
    "promoted",
    "rolled back",
    "break-glass",
    "canary ended",
    "drift alert",
    "test",
]
EVENTS: tuple[str, ...] = get_args(Event)
_SIMPLE: Mapping[str, Event] = {
    "approve": "approved",
    "reject": "rejected",
    "promote": "promoted",
    "rollback": "rolled back",
    "emergency": "break-glass",
}
_ENDS = frozenset({"promote", "fall back", "stop"})
_SHOWN = 5


@dataclass(frozen=True)
class Notice:
    """One thing that happened.

    Attributes:
        event: What kind.
        workspace: The name of the workspace's folder.
        version: Such as v3; empty where no version is concerned.
        alias: Such as production; empty where none is concerned.
        actor: Who did it.
        time: UTC, ISO 8601.
        text: One line in plain words.
        sequence: The ledger's row; 0 for a test.
        hash: That row's hash, by which a receiver knows a notice that came twice.
    """

    event: Event
    workspace: str
    version: str
    alias: str
    actor: str
    time: str
    text: str
    sequence: int
    hash: str

    def body(self) -> bytes:
        """The notice as JSON."""
        return json.dumps(vars(self), ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def notices_of(shop: "Workspace", entries: Iterable[LedgerEntry]) -> Iterator[Notice]:
    """The notices that rows of the ledger are worth, in their order."""
    names = {version.id: version.name for version in shop.archive.versions()}
    for entry in entries:
        event = _event(entry, names)
        if event is not None:
            version = _version(entry, names)
            alias = str(entry.details.get("alias") or "")
            text = _words(event, entry, version, alias)
            place = (shop.folder.resolve().name, version, alias)
            yield Notice(event, *place, entry.actor, entry.time, text, entry.sequence, entry.hash)


def _event(entry: LedgerEntry, names: Mapping[str, str]) -> Event | None:
    if entry.action in _SIMPLE:
        return _SIMPLE[entry.action]
    if entry.action == "report":  # the base is measured as well, and is no candidate
        return "candidate ready" if names.get(str(entry.details.get("version"))) not in (None, "v0") else None
    if entry.action == "canary":
        return "canary ended" if entry.details.get("event") in _ENDS else None
    if entry.action == "observe":
        return "drift alert" if _alerts(entry.details) else None
    return None


def _version(entry: LedgerEntry, names: Mapping[str, str]) -> str:
    found = entry.details.get("candidate" if entry.action == "canary" else "version")
    return names.get(str(found), "")


def _words(event: Event, entry: LedgerEntry, version: str, alias: str) -> str:
    said, who = entry.details, entry.actor
    told: Mapping[Event, str] = {
        "candidate ready": f"{version} was measured and waits for a decision ({who})",
        "approved": f"{version} was approved by {who}",
        "rejected": f"{version} was rejected by {who}",
        "promoted": f"{alias} holds {version} now, promoted by {who}",
        "rolled back": f"{alias} went back to {version} ({who})",
        "break-glass": f"THE GLASS WAS BROKEN: {who} lets {alias} hold {version} without consent",
        "canary ended": f"the canary of {version} on {alias} ended: {said.get('event')} ({who})",
        "drift alert": f"{version} on {alias} is beyond its limits",
    }
    why = said.get("comment") or said.get("reason") or "; ".join(_alerts(said))
    return f"{told[event]}: {why}" if why else told[event]


def _alerts(details: Mapping[str, Any]) -> list[str]:
    """The findings of an observation that are beyond their limits, in words; at most a few."""
    found = [row for row in json.loads(str(details.get("findings") or "[]")) if row.get("state") == "alert"]
    said = [f"{row['measure']}, {row['subject']}: {row['value']:.3g} (limit {row['limit']:.3g})" for row in found]
    return said if len(said) <= _SHOWN else [*said[:_SHOWN], f"and {len(said) - _SHOWN} more"]
