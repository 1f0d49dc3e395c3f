"""Checking a pack: every hash, the signature, the chain, and that its parts speak of one and the same thing."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import canonical_json, digest_bytes
from perdure.errors import PerdureError
from perdure.evidence.bom import patch_of
from perdure.evidence.chain import approvers, chain_problems, decisions, latest_report, makes, read_rows
from perdure.evidence.packing import ALWAYS, APPROVALS, BOM, LEDGER, POLICY, REPORT, SIGNER
from perdure.evidence.reading import MANIFEST, SIGNATURE, read_files
from perdure.evidence.statement import About, Statement, read_statement, seal_problem
from perdure.governance import parse_policy
from perdure.governance.approval import PRODUCTION
from perdure.signing import checked_fingerprint, fingerprint, parse_public
from perdure.workspace.ledger import LedgerEntry
from perdure.workspace.manifest import Manifest, read_manifest
from perdure.workspace.signers import trusted_signers

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


@dataclass(frozen=True)
class PackCheck:
    """What a check of a pack found.

    Attributes:
        about: What the pack says that it is about.
        problems: Everything wrong, each with the part that it concerns, in plain words.
        notes: What is not wrong and should be known.
        signer: The fingerprint of the key that signed.
        signer_known: Whether the caller named this key, or the workspace trusts it.
    """

    about: About
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    signer: str
    signer_known: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class _MissingError(Exception):
    """A file that a check needs is not there; the check of the files names it."""


@dataclass
class _Pack:
    """A pack as read."""

    files: dict[str, bytes]
    statement: Statement
    notes: list[str] = field(default_factory=list)

    @property
    def about(self) -> About:
        return self.statement.predicate

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise _MissingError(name)
        return self.files[name]

    @cached_property
    def rows(self) -> list[LedgerEntry]:
        return read_rows(self.file(LEDGER))

    @cached_property
    def public(self) -> str:
        return parse_public(self.file(SIGNER))

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """From the id of each version to its manifest."""
        names = sorted(name for name in self.files if name.startswith("versions/"))
        return {digest_bytes(self.files[name]): read_manifest(self.files[name]) for name in names}


def check_pack(path: Path, *, key: str = "", head: str = "", shop: "Workspace | None" = None) -> PackCheck:
    """Everything that is wrong with a pack, whoever wrote it.

    Args:
        path: Its folder or zip file.
        key: Whose signature it must have: a fingerprint, or a PEM file of the public key.
        head: The hash of a ledger row noted earlier; the extract must have it.
        shop: The workspace that it must be about, and that must trust the signer.

    Raises:
        UnsafeFileError: It could harm who opens it.
        IntegrityError: It is no pack.
        SettingError: The key is none.
    """
    wanted = _fingerprint(key) if key else None
    pack = _opened(path)
    problems = [problem for name, check in _CHECKS for problem in _named(name, check, pack)]
    if wanted is not None and pack.about.signer != wanted:
        problems.append(f"signature: the signer is {pack.about.signer}, not {wanted}")
    if head and head not in {row.hash for row in _rows_of(pack)}:
        problems.append(f"ledger: the row {head[:12]}… noted outside is not among the {len(_rows_of(pack))} rows")
    trusted = wanted is not None and pack.about.signer == wanted
    if shop is not None:
        believed = pack.about.signer in trusted_signers(shop)
        problems += _named("workspace", lambda pack: _against(pack, shop, believed=believed), pack)
        trusted = trusted or believed
    if wanted is None and shop is None:
        pack.notes.append(
            f"whose key {pack.about.signer} is was not checked: compare it with what the signer sees "
            "(perdure vectors key) and give it with --key"
        )
    return PackCheck(pack.about, tuple(problems), tuple(pack.notes), pack.about.signer, trusted)


def _opened(path: Path) -> _Pack:
    files = read_files(path)
    return _Pack(files, read_statement(files[MANIFEST]))


def _fingerprint(key: str) -> str:
    path = Path(key)
    return fingerprint(parse_public(path.read_bytes())) if path.is_file() else checked_fingerprint(key)


def _rows_of(pack: _Pack) -> Sequence[LedgerEntry]:
    try:
        return pack.rows
    except (PerdureError, _MissingError):
        return ()


def _named(name: str, check: "Callable[[_Pack], Iterator[str]]", pack: _Pack) -> list[str]:
    """What a check finds, each with its name; what stops it is a finding as well."""
    found: list[str] = []
    try:
        for problem in check(pack):
            found.append(f"{name}: {problem}")
    except _MissingError:
        pass
    except (PerdureError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found.append(f"{name}: it cannot be read: {error}")
    return found


def _check_files(pack: _Pack) -> Iterator[str]:
    named, found = pack.statement.hashes, pack.files.keys() - {MANIFEST, SIGNATURE}
    yield from (f"the manifest names no {name}" for name in sorted(ALWAYS - named.keys()))
    yield from (f"{name} is missing" for name in sorted(named.keys() - found))
    yield from (
        f"{name} does not belong to the pack; the manifest does not name it" for name in sorted(found - named.keys())
    )
    for name in sorted(named.keys() & found):
        digest = digest_bytes(pack.files[name])
        if digest != named[name]:
            yield f"{name} was changed: its sha256 is {digest[:12]}…, the manifest says {named[name][:12]}…"


def _check_signature(pack: _Pack) -> Iterator[str]:
    if SIGNATURE not in pack.files:
        yield f"{SIGNATURE} is missing; the pack is not signed"
        return
    if fingerprint(pack.public) != pack.about.signer:
        yield f"{SIGNER} holds another key than the one that the manifest names"
    if pack.statement.to_bytes() != pack.files[MANIFEST]:
        yield f"{MANIFEST} is not canonical JSON; it was changed"
    problem = seal_problem(pack.files[SIGNATURE], pack.files[MANIFEST], pack.public)
    if problem:
        yield problem


def _check_lineage(pack: _Pack) -> Iterator[str]:
    line = pack.about.lineage
    if line[-1] != pack.about.version:
        yield "the lineage does not end with the version"
    for name in sorted(set(line) - pack.manifests.keys()):
        yield f"no manifest has the id {name[:12]}… of the lineage; one was changed or left out"
    for name in sorted(pack.manifests.keys() - set(line)):
        yield f"a manifest has the id {name[:12]}…, which is not in the lineage"
    for parent, child in zip((None, *line), line, strict=False):
        manifest = pack.manifests.get(child)
        if manifest is not None and manifest.parents != (() if parent is None else (parent,)):
            yield f"version {child[:12]}… was not made from the one before it in the lineage"


def _check_report(pack: _Pack) -> Iterator[str]:
    digest = digest_bytes(pack.file(REPORT))
    if digest != pack.about.report:
        yield f"{REPORT} has the sha256 {digest[:12]}…, the manifest is about {pack.about.report[:12]}…"
    if json.loads(pack.file(REPORT)).get("version_id") != pack.about.version:
        yield f"{REPORT} is about another version"
    newest = latest_report(pack.rows, pack.about.version)
    if newest != pack.about.report:
        yield f"the ledger's newest report of the version is {(newest or 'none')[:12]}…, not the one in the pack"


def _check_policy(pack: _Pack) -> Iterator[str]:
    policy = parse_policy(pack.file(POLICY).decode())
    digest = policy.digest
    if digest != pack.about.policy:
        yield f"{POLICY} has the digest {digest[:12]}…, the manifest is about {pack.about.policy[:12]}…"
    if pack.about.policy != pack.about.policy_in_force:
        pack.notes.append("the policy in force at the export was another one than that of the approval")
    needed, given = policy.approvers(PRODUCTION), len(pack.about.approved_by)
    if 0 < given < needed:
        pack.notes.append(f"the policy asks for {needed} approvers before production; {given} counts")


def _check_ledger(pack: _Pack) -> Iterator[str]:
    about, rows = pack.about, pack.rows
    yield from chain_problems(rows, about.head)
    if len(rows) != about.ledger_rows:
        yield f"it has {len(rows)} rows, the manifest says {about.ledger_rows}"
    if not rows or not makes(rows[0], about.version):
        yield "its first row is not the one that made the version"
        return
    said = rows[0].details
    if said.get("parent") != (about.lineage[-2] if len(about.lineage) > 1 else None):
        yield "it names another parent of the version"
    if f"v{said.get('number')}" != about.name:
        yield f"it calls the version v{said.get('number')}, the manifest {about.name}"


def _check_approvals(pack: _Pack) -> Iterator[str]:
    about = pack.about
    given = json.loads(pack.file(APPROVALS))
    if [given.get(part) for part in ("version", "report", "policy")] != [about.version, about.report, about.policy]:
        yield "they are not about the version, report and policy of the manifest"
    found = decisions(pack.rows, about.version, about.report, about.policy)
    if canonical_json(given.get("decisions")) != canonical_json([asdict(one) for one in found]):
        yield "they are not what the ledger says"
    if about.approved_by != approvers(found):
        void = "; ".join(f"{one.approver}'s does not count: {one.void}" for one in found if one.void)
        counted = ", ".join(approvers(found)) or "nobody"
        yield (
            f"the manifest says approved by {', '.join(about.approved_by) or 'nobody'}, "
            f"the ledger {counted}{f' ({void})' if void else ''}"
        )
    if not about.approved_by:
        pack.notes.append("nobody's approval of this version, report and policy counts")


def _check_bom(pack: _Pack) -> Iterator[str]:
    model: dict[str, Any] = json.loads(pack.file(BOM))["metadata"]["component"]
    pedigree = model.get("pedigree", {})
    if _hashes(model) != [pack.about.version]:
        yield "it is of another version"
    line = pack.about.lineage
    if {hash_ for one in pedigree.get("ancestors", ()) for hash_ in _hashes(one)} != set(line[:-1]):
        yield "its ancestors are not those of the lineage"
    steps = [patch_of(pack.manifests[parent], pack.manifests[child]) for parent, child in pairwise(line)]
    patches = sorted(patch["diff"]["text"]["content"] for patch in pedigree.get("patches", ()))
    if patches != sorted(map(canonical_json, steps)):
        yield "its patches are not what the manifests say"


def _hashes(component: dict[str, Any]) -> list[str]:
    return [one["content"] for one in component.get("hashes", ()) if one["alg"] == "SHA-256"]


def _against(pack: _Pack, shop: "Workspace", *, believed: bool) -> Iterator[str]:
    """Where a pack and the workspace that it is to be about disagree."""
    about = pack.about
    own = {version.id: version for version in shop.archive.versions()}
    if not believed:
        yield f"it does not trust the signer {about.signer} (perdure vectors trust)"
    if about.version not in own:
        yield f"it has no version {about.version[:12]}…; the pack is about another workspace"
        return
    known = {row.sequence: row.hash for row in shop.archive.log()}
    other = [row.sequence for row in pack.rows if known.get(row.sequence) != row.hash]
    if other:
        yield f"row {other[0]} of its ledger is another one; one of the two was rewritten"
    if shop.archive.report_digest(own[about.version]) != about.report:
        pack.notes.append("the workspace has a newer report of the version")
    if shop.policy.digest != about.policy:
        pack.notes.append("another policy is in force in the workspace now")


_CHECKS: tuple[tuple[str, Callable[[_Pack], Iterator[str]]], ...] = (
    ("files", _check_files),
    ("signature", _check_signature),
    ("lineage", _check_lineage),
    ("report", _check_report),
    ("policy", _check_policy),
    ("ledger", _check_ledger),
    ("approvals", _check_approvals),
    ("bill of materials", _check_bom),
)
