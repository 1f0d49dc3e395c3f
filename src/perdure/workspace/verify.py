"""Verification: every byte of a workspace against its hash, every row against the ledger."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from perdure.deltas.files import load_notes
from perdure.errors import IntegrityError, PerdureError
from perdure.workspace import ledger, taught
from perdure.workspace.database import Database, check_file
from perdure.workspace.encodings import dtype_name
from perdure.workspace.garbage import object_files
from perdure.workspace.manifest import Manifest, TensorRecord, is_pool_file, read_manifest
from perdure.workspace.objects import ObjectStore, TensorReader
from perdure.workspace.pool_folder import check_pool
from perdure.workspace.records import Verification
from perdure.workspace.replaying import check_decisions


def stored_manifest(store: ObjectStore, number: int, version: str, parent: str | None) -> Manifest:
    """A version's manifest, checked against its id and its parent.

    Raises:
        IntegrityError: It is missing, damaged, or belongs to another parent; names the version.
        UnsafeFileError: It names a file that does not belong in a model folder.
    """
    try:
        manifest = read_manifest(store.read(version))
    except IntegrityError as error:
        raise IntegrityError(f"v{number}, its manifest: {error}") from error
    if manifest.parents != (() if parent is None else (parent,)):
        raise IntegrityError(f"v{number}: its parent in the database is not that of its manifest")
    return manifest


def parsed(data: bytes) -> dict[str, Any]:
    """A stored JSON object.

    Raises:
        IntegrityError: The bytes are something else.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError("it is no JSON object")
    return value


@dataclass
class _Findings:
    """What a check has found so far.

    Attributes:
        problems: In plain words.
        manifests: The readable ones by their version's name.
    """

    problems: list[str] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)

    @contextmanager
    def noting(self, where: str = "") -> Iterator[None]:
        """Note what the block raises and go on after it."""
        try:
            yield
        except (PerdureError, OSError, sqlite3.Error) as error:
            self.problems.append(f"{where}{error}")


def check_workspace(store: ObjectStore, database: Database, *, deep: bool, head: str | None) -> Verification:
    """Everything wrong with a workspace.

    Args:
        store: Its objects.
        database: Its database.
        deep: Read every byte; otherwise only presence and sizes.
        head: The hash of a ledger row that must be there.
    """
    findings = _Findings()
    counts = dict.fromkeys(("versions", "objects", "pools", "unlisted"), 0)
    rows, last = 0, ""
    with findings.noting("database: "):
        connection = database.connection()
        findings.problems += check_file(connection)
        findings.problems += ledger.check_chain(connection, head)
        findings.problems += ledger.check_governed(connection)
        findings.problems += _check_decisions(connection)
        rows, last = connection.execute(
            "SELECT COUNT(*), COALESCE((SELECT hash FROM ledger ORDER BY sequence DESC LIMIT 1), '') FROM ledger"
        ).fetchone()
        counts["versions"] = _check_manifests(store, connection, findings)
        counts["objects"] = _check_tensors(store, findings, deep)
        counts["objects"] += _check_documents(store, connection, findings, deep)
        counts["pools"] = _check_pools(store, findings) if deep else 0
        _check_copies(store, connection, findings, deep)
        counts["unlisted"] = _count_unlisted(store, connection)
    problems = tuple(dict.fromkeys(findings.problems))
    return Verification(problems, **counts, ledger_rows=int(rows), deep=deep, head=str(last))


def _check_decisions(connection: sqlite3.Connection) -> list[str]:
    """Rules of decisions and numbering that hold whatever the triggers were at the time."""
    problems = check_decisions(connection)
    odd = connection.execute(
        "SELECT o.hash FROM objects o LEFT JOIN objects r ON r.hash = o.reference "
        "WHERE o.depth IS NOT CASE WHEN o.reference IS NULL THEN 0 ELSE COALESCE(r.depth, 0) + 1 END"
    )
    problems += [f"object {row[0]}: the database lists a wrong depth for it" for row in odd]
    numbers = [row[0] for row in connection.execute("SELECT number FROM versions ORDER BY number")]
    if numbers != list(range(len(numbers))) or not numbers:
        problems.append("the versions are not numbered without gaps from v0; one is gone")
    return problems


def _check_manifests(store: ObjectStore, connection: sqlite3.Connection, findings: _Findings) -> int:
    rows = connection.execute("SELECT number, id, parent FROM versions ORDER BY number").fetchall()
    for row in rows:
        with findings.noting():
            findings.manifests[f"v{row['number']}"] = stored_manifest(store, *row)
    return len(rows)


def _check_tensors(store: ObjectStore, findings: _Findings, deep: bool) -> int:
    """Every tensor of every version, each object once; how many objects."""
    wanted: dict[str, tuple[str, TensorRecord]] = {}
    for version, manifest in findings.manifests.items():
        for name, record in manifest.tensors.items():
            label = f"{version}, tensor {name}: "
            _, first = wanted.setdefault(record.hash, (label, record))
            if (first.dtype, first.shape) != (record.dtype, record.shape):
                findings.problems.append(f"{label}its dtype or shape is not that of object {record.hash}")
    packs = set[str]()
    for label, record in wanted.values():
        with findings.noting(label):
            if deep:
                tensor = TensorReader(store).tensor(record.hash)  # a reader keeps what it maps
                if (dtype_name(tensor.dtype), tuple(tensor.shape)) != (record.dtype, record.shape):
                    raise IntegrityError(f"its dtype or shape is not that of object {record.hash}")
            else:
                _check_presence(store, record.hash, packs)
    for row in store.rows("SELECT id FROM packs") if deep else ():
        with findings.noting():
            TensorReader(store).check_copies(row["id"])
    return len(wanted)


def _check_presence(store: ObjectStore, name: str, packs: set[str]) -> None:
    known = store.listed(name)
    if known is not None:
        store.loose_file(known, hashed=False)
        return
    place = store.packed(name)
    if place is None:
        raise IntegrityError(f"object {name} is not listed in the database")
    if place[0] not in packs:
        store.pack_file(place[0])
        packs.add(place[0])


def _check_documents(store: ObjectStore, connection: sqlite3.Connection, findings: _Findings, deep: bool) -> int:
    """Side files, deltas, reports and whatever else is listed; how many."""
    labels: dict[str, str] = {}
    for version, manifest in findings.manifests.items():
        labels |= {stored: f"{version}, file {name}: " for name, stored in manifest.files.items()}
        labels |= {manifest.solved: f"{version}, its solved delta: "} if manifest.solved else {}
    query = "SELECT v.number, r.digest FROM reports r JOIN versions v ON v.id = r.version"
    labels |= {row["digest"]: f"v{row['number']}, its report: " for row in connection.execute(query)}
    listed = {row["hash"]: row["kind"] for row in connection.execute("SELECT hash, kind FROM objects")}
    for name in labels.keys() | {name for name, kind in listed.items() if kind != "tensor"}:
        with findings.noting(labels.get(name, "")):
            known = store.listed(name)
            if known is None:
                raise IntegrityError(f"object {name} is not listed in the database")
            store.loose_file(known, hashed=deep)
            if known.digest != name:
                raise IntegrityError(f"object {name}: the database lists another digest for it")
    tensors = {record.hash for manifest in findings.manifests.values() for record in manifest.tensors.values()}
    for name in {name for name, kind in listed.items() if kind == "tensor"} - tensors:
        with findings.noting():
            known = store.listed(name)
            if known is not None:  # a reference that no version uses itself any more
                store.loose_file(known, hashed=deep)
    return len(labels)


def _check_pools(store: ObjectStore, findings: _Findings) -> int:
    """The pool of every version, each adapter once; how many pools."""
    known, count = set[str](), 0
    for version, manifest in findings.manifests.items():
        files = {name: stored for name, stored in manifest.files.items() if is_pool_file(name)}
        with findings.noting(f"{version}, its pool: "):
            if files:
                count += 1
                check_pool(files, store.read, known)
    return count


def _check_copies(store: ObjectStore, connection: sqlite3.Connection, findings: _Findings, deep: bool) -> None:
    """What was copied for searching: each row whole, and (deep) what the objects say."""
    stale = taught.damaged(connection)
    if stale:
        findings.problems.append(f"{stale} rows copied for searching are damaged; the next search copies them again")
    rows = connection.execute("SELECT number, id FROM versions WHERE id IN (SELECT source FROM copied)") if deep else ()
    for row in rows:
        manifest = findings.manifests.get(f"v{row['number']}")
        if manifest is not None and manifest.solved is not None:
            with findings.noting(f"v{row['number']}, what it was taught: "):
                notes = load_notes(store.delta_file(manifest.solved))
                taught.check_copied(connection, row["id"], taught.taught_in(row["id"], notes))


def _count_unlisted(store: ObjectStore, connection: sqlite3.Connection) -> int:
    known = {row[0] for row in connection.execute("SELECT hash FROM objects")}
    known |= {f"{row[0]}.safetensors" for row in connection.execute("SELECT id FROM packs")}
    return sum(path.name not in known for path in object_files(store))
