"""What the metrics are made of: versions, reports and the ledger, each read once and then kept."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError
from perdure.workspace.ledger import LedgerEntry
from perdure.workspace.records import Version
from perdure.workspace.serving import ROLLBACK_TIME

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.)")


@dataclass(frozen=True)
class Step:
    """One update.

    Attributes:
        method: What made it: an editor, "tuning", "removal" or another kind.
        count: Facts taught, or 1.
        layers: The blocks that it changed.
        flops: Floating-point operations of its training, where they were noted.
    """

    method: str
    count: int
    layers: frozenset[str]
    flops: float


@dataclass
class History:
    """The ledger so far, each row read once.

    Attributes:
        sound: Whether every row follows the one before it and has the hash of its contents.
        reports: (version's id, digest) of every report, oldest first.
        latest: The digest of each version's latest report.
        waits: Seconds from a version's making to its first approval.
        rollbacks: Seconds that rollbacks took.
        verified: How many rollbacks found their target whole, and how many did not.
        breaks: How often the glass was broken.
    """

    sound: bool = True
    reports: list[tuple[str, str]] = field(default_factory=list)
    latest: dict[str, str] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    rollbacks: list[float] = field(default_factory=list)
    verified: Counter[bool] = field(default_factory=Counter)
    breaks: int = 0
    _last: tuple[int, str] = (0, "")
    _made: dict[str, datetime] = field(default_factory=dict)

    def catch_up(self, shop: "Workspace") -> None:
        """Read the rows that are new."""
        try:
            fresh = shop.archive.log(after=self._last[0])
        except PerdureError:  # a row that is no JSON
            self.sound = False
            return
        for entry in fresh:
            follows = (entry.sequence, entry.previous) == (self._last[0] + 1, self._last[1])
            self.sound = self.sound and follows and entry.is_whole()
            self._last = entry.sequence, entry.hash
            self._read(entry)

    def _read(self, entry: LedgerEntry) -> None:
        said = entry.details
        match entry.action:
            case "create" | "commit":
                self._made[str(said.get("id"))] = datetime.fromisoformat(entry.time)
            case "report":
                self.reports.append((str(said["version"]), str(said["digest"])))
                self.latest[str(said["version"])] = str(said["digest"])
            case "approve":
                made = self._made.pop(str(said["version"]), None)
                if made is not None:
                    self.waits.append(max(0.0, (datetime.fromisoformat(entry.time) - made).total_seconds()))
            case "emergency":
                self.breaks += 1
            case action if action == ROLLBACK_TIME:
                self.verified[bool(said.get("verified"))] += 1
                if said.get("verified"):
                    self.rollbacks.append(float(said.get("seconds", 0.0)))


def step_of(shop: "Workspace", version: Version, parent: Version) -> Step:
    """How a version was made from its parent, from their manifests and notes alone."""
    recipe, notes = version.manifest.recipe, shop.archive.notes(version)
    before = parent.manifest.tensors
    changed = [name for name, found in version.manifest.tensors.items() if before.get(name) != found]
    facts = recipe.get("facts")
    count = int(facts.get("count", 1)) if isinstance(facts, Mapping) else 1
    flops = (notes.get("training") or {}).get("flops", 0.0)
    return Step(_method(recipe), max(1, count), frozenset(map(layer_of, changed)), float(flops or 0.0))


def _method(recipe: Mapping[str, Any]) -> str:
    if "removed" in recipe:
        return "removal"
    if "editor" in recipe:
        return str(recipe["editor"])
    return "tuning" if "task" in recipe else str(recipe.get("kind") or "other")


def layer_of(tensor: str) -> str:
    """The number of the block that a tensor belongs to; "none" for one outside the blocks."""
    found = _NUMBER.search(tensor)
    return found.group(1) if found else "none"


def verdicts_of(report: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """How many gates of each family said what, in a stored report.

    A gate's own name can hold the name of a task or a capability, of which there may be any number; its family
    cannot.
    """
    return Counter((_family(row["gate"]), str(row["verdict"])) for row in report.get("verdicts") or ())


def _family(gate: str) -> str:
    return gate.split(":", maxsplit=1)[0].split(" (", maxsplit=1)[0].strip()
