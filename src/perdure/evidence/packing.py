"""Writing a pack: the documents of a version, their manifest and its signature, as a folder or a zip file."""

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import perdure
from perdure.content import atomic_path, canonical_json, fresh_folder, write_synced
from perdure.errors import SettingError, WorkspaceError
from perdure.evidence.bom import bill_of_materials
from perdure.evidence.card import model_card
from perdure.evidence.chain import write_rows
from perdure.evidence.facts import VersionFacts, facts_of, local_paths
from perdure.evidence.reading import LARGEST, MANIFEST, SIGNATURE
from perdure.evidence.statement import About, seal, state
from perdure.signing import fingerprint, public_part, public_pem
from perdure.workspace.ledger import checked_actor, now
from perdure.workspace.records import Version
from perdure.workspace.signers import own_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from perdure.workspace.workspace import Workspace

CARD, BOM, REPORT, PAGE = "README.md", "bom.cdx.json", "report.json", "report.html"
POLICY, APPROVALS, LEDGER, SIGNER = "policy.toml", "approvals.json", "ledger.jsonl", "signer.pem"
ALWAYS = frozenset({CARD, BOM, REPORT, PAGE, POLICY, APPROVALS, LEDGER, SIGNER})
"""The files that every pack has beside its manifest, signature and versions."""

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say: the same content has the same bytes


@dataclass(frozen=True)
class Exported:
    """A pack that was written.

    Attributes:
        path: The folder or file.
        about: What stands in its manifest.
        files: How many files it has.
        bytes: Their size together, unpacked.
        paths: Texts in its hashed documents that look like paths on some machine; they could not be left out.
    """

    path: Path
    about: About
    files: int
    bytes: int
    paths: tuple[str, ...]


def export_pack(shop: "Workspace", version: Version, target: Path, *, page: str, actor: str) -> Exported:
    """Write all the evidence of a version, signed with the workspace's key, which is made if there is none.

    Apart from the time and the signature, the same state of the workspace gives the same bytes.

    Args:
        shop: The workspace.
        version: A measured version.
        target: A new file whose name ends in .zip, or a new folder.
        page: Its report as an HTML page.
        actor: Who exports it.

    Raises:
        WorkspaceError: It was never measured, or its evidence is larger than a pack may be.
        IntegrityError: The ledger or the report is damaged.
        SettingError: The target is there.
    """
    if target.suffix == ".zip" and (target.exists() or target.is_symlink()):
        raise SettingError(f"{target} exists; name a new file")
    facts, key = facts_of(shop, version), own_key(shop, checked_actor(actor))
    files = {**_documents(facts, page), SIGNER: public_pem(key)}
    about = _about(facts, key)
    manifest = state(files, about).to_bytes()
    files |= {MANIFEST: manifest, SIGNATURE: seal(manifest, key)}
    size = sum(map(len, files.values()))
    if size > LARGEST:
        raise WorkspaceError(f"the evidence of {version.name} has {size:,} bytes; at most {LARGEST:,} are read again")
    _write(target, files)
    return Exported(target, about, len(files), size, _paths(files))


def _documents(facts: VersionFacts, page: str) -> dict[str, bytes]:
    decided = {
        "version": facts.version.id,
        "report": facts.report_digest,
        "policy": facts.policy.digest,
        "requester": facts.version.requester,
        "decisions": [asdict(decision) for decision in facts.decisions],
    }
    return {
        CARD: model_card(facts).encode(),
        BOM: bill_of_materials(facts),
        REPORT: facts.report_bytes,
        PAGE: page.encode(),
        POLICY: facts.policy_text.encode(),
        APPROVALS: f"{canonical_json(decided)}\n".encode(),
        LEDGER: write_rows(facts.rows),
        **{f"versions/{version.name}.json": version.manifest.to_bytes() for version in facts.lineage},
    }


def _about(facts: VersionFacts, key: "Ed25519PrivateKey") -> About:
    return About(
        name=facts.version.name,
        version=facts.version.id,
        lineage=tuple(version.id for version in facts.lineage),
        report=facts.report_digest,
        policy=facts.policy.digest,
        policy_in_force=facts.policy_in_force,
        approved_by=facts.approved_by,
        ledger_rows=len(facts.rows),
        head=facts.rows[-1].hash,
        signer=fingerprint(public_part(key)),
        exported=now(),
        perdure=perdure.__version__,
    )


def _paths(files: Mapping[str, bytes]) -> tuple[str, ...]:
    hashed = {REPORT, *(name for name in files if name.startswith("versions/"))}
    return tuple(dict.fromkeys(f"{name}: {text}" for name in sorted(hashed) for text in local_paths(files[name])))


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    if target.suffix != ".zip":
        with fresh_folder(target) as scratch:
            (scratch / "versions").mkdir()
            for name, data in files.items():
                write_synced(scratch / name, data)
        return
    with atomic_path(target) as scratch, zipfile.ZipFile(scratch, "x", zipfile.ZIP_DEFLATED) as pack:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            pack.writestr(entry, files[name])
