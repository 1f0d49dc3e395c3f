"""Everything that a pack tells of one version, taken from a workspace and checked against its ledger."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.content import canonical_json, digest_bytes
from perdure.errors import IntegrityError, SettingError, WorkspaceError
from perdure.evidence.chain import Decision, approvers, decisions, extract
from perdure.governance import Policy, parse_policy
from perdure.measuring.report import Report
from perdure.workspace.ledger import LedgerEntry
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_LOCAL = re.compile(r"^(?:/[^/\s]+/|~/|file://|[A-Za-z]:[\\/])")


@dataclass(frozen=True)
class VersionFacts:
    """What is known of one version.

    Attributes:
        version: The version.
        lineage: From the base to it.
        report: Its latest report.
        report_bytes: The report as it was stored; its sha256 is what approvals name.
        policy: The policy by which the pack judges it: that of the newest approval, where its text is known.
        policy_text: Its TOML text.
        policy_in_force: The digest of the policy in force.
        decisions: Approvals and rejections, each with what voids it.
        rows: The ledger from the row that made the version to the last.
    """

    version: Version
    lineage: tuple[Version, ...]
    report: Report
    report_bytes: bytes
    policy: Policy
    policy_text: str
    policy_in_force: str
    decisions: tuple[Decision, ...]
    rows: tuple[LedgerEntry, ...]

    @property
    def base(self) -> Version:
        """The version that the lineage starts from."""
        return self.lineage[0]

    @property
    def report_digest(self) -> str:
        """The sha256 of the report, which approvals name."""
        return digest_bytes(self.report_bytes)

    @property
    def source(self) -> str:
        """Where the base came from, in words; of a local folder its name only."""
        return without_folders(str(self.base.manifest.recipe.get("source", "")))

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Whose consent counts."""
        return approvers(self.decisions)

    @property
    def moves(self) -> list[LedgerEntry]:
        """The rows by which an alias came to hold the version."""
        kinds = ("promote", "rollback", "break glass")
        return [row for row in self.rows if row.action in kinds and row.details.get("version") == self.version.id]


def facts_of(shop: "Workspace", version: Version) -> VersionFacts:
    """What a workspace knows of a version.

    Raises:
        WorkspaceError: It was never measured.
        IntegrityError: The ledger or the report is damaged.
    """
    found = shop.archive.report(version)
    if found is None:
        raise WorkspaceError(f"{version.name} has no report; run perdure measure {version.name} first")
    data = canonical_json(found).encode()
    digest = digest_bytes(data)
    if digest != shop.archive.report_digest(version):
        raise IntegrityError(f"{version.name}: its report does not have the hash that the ledger names; run verify")
    everything = shop.archive.log()
    rows = extract(everything, version.id)
    in_force = shop.policy_text()
    text = _policy_text(everything, in_force, decisions(rows, version.id, digest, None))
    policy = parse_policy(text)
    return VersionFacts(
        version=version,
        lineage=tuple(shop.archive.lineage(version)),
        report=Report.model_validate(found),
        report_bytes=data,
        policy=policy,
        policy_text=text,
        policy_in_force=parse_policy(in_force).digest,
        decisions=tuple(decisions(rows, version.id, digest, policy.digest)),
        rows=tuple(rows),
    )


def _policy_text(rows: Sequence[LedgerEntry], in_force: str, given: Sequence[Decision]) -> str:
    """The policy that the newest approval names, where its text is known; else the one in force."""
    named = next((one.policy for one in reversed(given) if one.decision == "approved" and not one.void), None)
    known = [str(row.details.get("text")) for row in rows if row.action == "policy"]
    return next((text for text in (in_force, *reversed(known)) if _has_digest(text, named)), in_force)


def _has_digest(text: str, digest: str | None) -> bool:
    try:
        return parse_policy(text).digest == digest
    except SettingError:  # written for another version of the program
        return False


def without_folders(words: str) -> str:
    """Words in which a path on some machine is only its last part."""
    return " ".join(_last_part(word) if _LOCAL.match(word) else word for word in words.split(" "))


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def local_paths(data: bytes) -> Iterator[str]:
    """The texts in a JSON document that look like paths on some machine."""
    for text in _texts(json.loads(data)):
        if _LOCAL.match(text):
            yield text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
