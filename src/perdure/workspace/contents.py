"""Versions and what is in them: committed as deltas, read back bit for bit, written as model folders."""

import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from perdure.deltas import Delta, changed, load_delta, save_delta
from perdure.deltas.files import load_notes
from perdure.errors import (
    EditError,
    IntegrityError,
    ModelError,
    SettingError,
    UnknownNameError,
    WorkspaceError,
)
from perdure.models.checkpoint import Checkpoint
from perdure.workspace import aliases, ledger
from perdure.workspace.base import Base
from perdure.workspace.checkout import write_folder
from perdure.workspace.database import lay_out, translated
from perdure.workspace.encodings import dtype_name, is_finite
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.heads import HEADS, export_heads
from perdure.workspace.ledger import checked_actor, plain_json
from perdure.workspace.manifest import (
    Manifest,
    TensorRecord,
    check_file_names,
    is_head_file,
    is_pool_file,
    is_side_file,
    library_versions,
)
from perdure.workspace.objects import Pack, StoredObject, TensorReader
from perdure.workspace.pool_folder import POOL, export_pool
from perdure.workspace.records import StorageReport, Version
from perdure.workspace.version_delta import write_version_delta

OWN_FOLDERS = ("objects", "tmp", "quarantine")
_NUMBER = re.compile(r"v[0-9]+", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class Room:
    """What a version has that its parent does not: tensors, by name, and files such as a config that tells of them."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


_NO_ROOM = Room()


class Contents(Base):
    """The versions of a workspace and their tensors."""

    @translated("reading the versions")
    def versions(self) -> list[Version]:
        """Every version, oldest first."""
        self._checked()
        return self._find()

    @translated("looking up a version")
    def version(self, ref: str) -> Version:
        """The version that `ref` names: "v3", "latest", an alias, or the first six or more digits of its id.

        Raises:
            UnknownNameError: Nothing has that name, or more than one id starts so.
        """
        heads = aliases.heads(self._checked())
        known = self._find()
        if ref in heads:
            found = [self._by_id(heads[ref])]
        elif ref == "latest":
            found = known[-1:]
        elif _NUMBER.fullmatch(ref):
            found = [version for version in known if version.name == ref]
        else:
            found = [version for version in known if _PREFIX.fullmatch(ref) and version.id.startswith(ref)]
        if len(found) != 1:
            raise UnknownNameError("version", ref, [*(version.name for version in known), *heads])
        return found[0]

    @translated("reading the lineage")
    def lineage(self, version: Version) -> list[Version]:
        """The version's ancestors, the base first, and itself last."""
        known = {found.id: found for found in self.versions()}
        line = [self._own(version)]
        while (parent := line[-1].parent) is not None and len(line) <= len(known):
            if parent not in known:
                raise IntegrityError(f"{line[-1].name}: its parent {parent[:12]}… is gone; run verify")
            line.append(known[parent])
        return line[::-1]

    def commit(
        self,
        parent: Version,
        delta: Delta,
        *,
        solved: Delta,
        recipe: Mapping[str, Any],
        actor: str,
        room: Room = _NO_ROOM,
    ) -> Version:
        """A new version: the parent's weights plus the delta.

        If the same edit of the same parent is there already, that version comes back and the ledger says so.

        Args:
            parent: The version to change.
            delta: What is added to its tensors.
            solved: What the editor solved before restraint, with its keys; kept as part of the version.
            recipe: How it was made, as JSON: editor, resolved config, facts, seeds, restraint, data hashes.
            actor: Who asks for it.
            room: Tensors that the parent does not have and the delta may change, and files that make room for them.

        Raises:
            SettingError: The delta does not fit the parent, changes weights under a pool, or the recipe is not JSON.
            UnsafeFileError: A file's name is none of a model's or a pool's.
            EditError: A sum overflows the tensor's dtype.
            WorkspaceError: Another writer is busy, or the disk is full; nothing was changed.
        """
        actor, recipe = checked_actor(actor), plain_json(recipe)
        parent = self._own(parent)
        before = parent.manifest
        check_file_names(room.files)
        _check_fits(delta.check_finite(), before, parent.name, room.tensors)
        if (delta or room.tensors) and any(map(is_pool_file, before.files)):
            raise SettingError(f"{parent.name} has a pool of adapters, which were trained on its weights as they are")
        with self._writing("commit", actor):
            records, made = self._store_tensors(parent, delta, room.tensors)
            files, more = self._store_files(room.files)
            reach(Point.COMMIT_TENSORS_STORED)
            kept = self._store_delta(solved.check_finite())
            reach(Point.COMMIT_SOLVED_STORED)
            manifest = Manifest(
                tensors={**before.tensors, **records},
                files={**before.files, **files},
                parents=(parent.id,),
                solved=kept.hash,
                recipe=dict(recipe),
                libraries=library_versions(),
            )
            return self._commit_manifest(manifest, [*made, *more, kept], parent, actor)

    def _commit_manifest(self, manifest: Manifest, made: list[StoredObject], parent: Version, actor: str) -> Version:
        stored = self._store.put(manifest.to_bytes(), "manifest")
        reach(Point.COMMIT_MANIFEST_STORED)
        same = self._with_id(stored.hash)
        if same:
            with self._database.transaction() as connection:
                self._enter_objects(connection, made, same[0].number)
                details = {"version": same[0].id, "name": same[0].name}
                ledger.append(connection, "commit again", details, actor)
            return same[0]
        with self._database.transaction() as connection:
            self._enter_version(connection, stored, made, parent=parent.id, actor=actor)
        return self._by_id(stored.hash)

    def _enter_version(
        self,
        connection: sqlite3.Connection,
        manifest: StoredObject,
        made: list[StoredObject],
        *,
        parent: str | None,
        actor: str,
    ) -> None:
        number = int(connection.execute("SELECT COUNT(*) FROM versions").fetchone()[0])
        self._enter_objects(connection, [*made, manifest], number)
        values = {"number": number, "id": manifest.hash, "parent": parent, "requester": actor}
        action = "create" if parent is None else "commit"
        ledger.append_row(connection, "versions", values, action=action, actor=actor)

    def _enter_objects(self, connection: sqlite3.Connection, made: list[StoredObject], number: int) -> None:
        new = [stored for stored in made if self._store.listed(stored.hash) is None]
        self._store.heal(connection, [stored for stored in made if stored.kind == "tensor" and stored not in new])
        self._store.enter(connection, new, number)

    def _store_tensors(
        self, parent: Version, delta: Delta, added: Mapping[str, Tensor]
    ) -> tuple[dict[str, TensorRecord], list[StoredObject]]:
        """Store the changed and the added tensors, one in memory at a time; their records and the new objects."""
        records: dict[str, TensorRecord] = {}
        made: list[StoredObject] = []
        for name in sorted({*delta.changes, *added}):
            old = added[name] if name in added else self.tensors(parent, [name])[name]
            new = changed(old, delta.changes[name]) if name in delta.changes else old
            if not is_finite(new):
                raise EditError(f"{name}: the change overflows {dtype_name(new.dtype)}; restrain it")
            reference = (None, None) if name in added else (old, delta.changes[name])
            record, stored = self._store.put_tensor(new, *reference)
            records[name] = TensorRecord(hash=record, dtype=dtype_name(new.dtype), shape=tuple(new.shape))
            made += [stored] if stored is not None and stored not in made else []
        return records, made

    def _store_files(self, files: Mapping[str, bytes]) -> tuple[dict[str, str], list[StoredObject]]:
        stored = {name: self._store.put(data, "file") for name, data in files.items()}
        return {name: kept.hash for name, kept in stored.items()}, list(stored.values())

    def _store_delta(self, solved: Delta) -> StoredObject:
        path = self._store.scratch_file()
        save_delta(solved, path)
        return self._store.adopt(path, "delta")

    @translated("reading tensors")
    def tensors(self, version: Version, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The version's tensors by name, or those named; each verified by its hash.

        Tensors that no edit changed are memory-mapped, privately: writing to one changes no file.

        Raises:
            UnknownNameError: The version has no tensor of that name.
            IntegrityError: A tensor is missing, damaged or not finite; names object, version and tensor.
        """
        records = version.manifest.tensors
        reader, read = TensorReader(self._store), dict[str, Tensor]()
        seen: set[str] = set()
        for name in records if names is None else names:
            if name not in records:
                raise UnknownNameError("tensor", name, records)
            record = records[name]
            tensor = _read(reader, version, name, record)
            # Two names of equal bits must not share memory: libraries would drop one when saving.
            read[name] = tensor.clone() if record.hash in seen else tensor
            seen.add(record.hash)
        return read

    @translated("checking a version")
    def check_stored(self, version: Version) -> None:
        """Check everything that a version is made of, one tensor in memory at a time.

        Raises:
            IntegrityError: Something stored is missing or damaged.
        """
        for name, record in version.manifest.tensors.items():
            _read(TensorReader(self._store), version, name, record)
        self._files(version, version.manifest.files)

    @translated("reading a solved delta")
    def solved(self, version: Version) -> Delta:
        """What this version's own edit solved before restraint, with its keys; empty for the base.

        Raises:
            IntegrityError: The stored delta is missing or damaged.
        """
        name = version.manifest.solved
        if name is None:
            return Delta()
        try:
            return load_delta(self._store.delta_file(name))
        except IntegrityError as error:
            raise IntegrityError(f"{version.name}, its solved delta: {error}") from error

    @translated("reading notes")
    def notes(self, version: Version) -> dict[str, Any]:
        """The notes of this version's own edit: what it was taught, and how; none for the base.

        Raises:
            IntegrityError: The stored delta is missing or damaged.
        """
        name = version.manifest.solved
        if name is None:
            return {}
        try:
            return load_notes(self._store.delta_file(name))
        except IntegrityError as error:
            raise IntegrityError(f"{version.name}, its solved delta: {error}") from error

    @translated("writing a model folder")
    def checkout(self, version: Version, folder: Path) -> None:
        """Write the version as an ordinary model folder, for `from_pretrained`; whole or not at all.

        Args:
            version: Which.
            folder: Where to; missing or empty. Over 5 GB the weights are sharded.

        One tensor is in memory at a time, and what it was made from. A version with a pool has a folder `pool` with
        the adapters in use and their router; that of an encoder which learnt labelled sets a folder `heads`.

        Raises:
            SettingError: The folder is not empty.
            WorkspaceError: It belongs to the workspace's own, or the disk is full.
            IntegrityError: Something stored is damaged.
        """
        target = Path(folder).resolve()
        if any(target.is_relative_to((self.folder / own).resolve()) for own in OWN_FOLDERS):
            raise WorkspaceError(f"{folder} is one of the workspace's own folders; name another")
        manifest = self._own(version).manifest
        files, attached, heads = self.side_files(version), self.pool_files(version), self.head_files(version)

        def read(name: str) -> Tensor:  # a reader of its own each time: what it maps leaves memory with it
            return _read(TensorReader(self._store), version, name, manifest.tensors[name])

        def finish(scratch: Path) -> None:
            if attached:
                export_pool(attached, scratch / POOL)
            export_heads(heads, scratch / HEADS)

        write_folder(Path(folder), manifest, files, read, finish=finish)

    @translated("writing a delta")
    def write_delta(self, version: Version, path: Path) -> None:
        """Write what turns the base into the version as one file, which `apply_to_folder` puts on any copy of the base.

        Raises:
            SettingError: The version is the base, or the file is there.
            IntegrityError: Something stored is damaged.
        """
        version = self._own(version)
        base = self.lineage(version)[0]
        if version.id == base.id:
            raise SettingError(f"{version.name} is the base: it has no delta to export")
        if path.exists() or path.is_symlink():
            raise SettingError(f"{path} exists; name a new file")
        if any(map(is_pool_file, version.manifest.files)):
            raise SettingError(f"{version.name} answers with a pool of adapters; export it as a folder instead")
        write_version_delta(self._store, version, base, path)

    @translated("reading storage")
    def storage(self, version: Version) -> StorageReport:
        """What storing this version added on disk, and the size of its tensors."""
        query = (
            "SELECT COALESCE((SELECT SUM(bytes) FROM objects WHERE added_by = :n), 0) "
            "+ COALESCE((SELECT SUM(bytes) FROM packs WHERE added_by = :n), 0)"
        )
        added = self._database.connection().execute(query, {"n": version.number}).fetchone()[0]
        return StorageReport(int(added), version.manifest.nbytes)

    @translated("reading side files")
    def side_files(self, version: Version) -> dict[str, bytes]:
        """The version's config, tokenizer and template files by name, each verified by its hash.

        Raises:
            IntegrityError: A file is missing or damaged; names object, version and file.
        """
        return self._files(version, [name for name in version.manifest.files if is_side_file(name)])

    @translated("reading a pool")
    def pool_files(self, version: Version, prefix: str = "") -> dict[str, bytes]:
        """The files of the version's pool whose names start so, each verified by its hash; none without a pool.

        Raises:
            IntegrityError: A file is missing or damaged; names object, version and file.
        """
        found = [name for name in version.manifest.files if is_pool_file(name) and name.startswith(prefix)]
        return self._files(version, found)

    @translated("reading heads")
    def head_files(self, version: Version) -> dict[str, bytes]:
        """The heads of the version's encoder, each verified by its hash; none where nothing was learnt.

        Raises:
            IntegrityError: A file is missing or damaged; names object, version and file.
        """
        return self._files(version, [name for name in version.manifest.files if is_head_file(name)])

    def _files(self, version: Version, names: Iterable[str]) -> dict[str, bytes]:
        files = {}
        for name in names:
            try:
                files[name] = self._store.read(version.manifest.files[name])
            except IntegrityError as error:
                raise IntegrityError(f"{version.name}, file {name}: {error}") from error
        return files

    def _import(self, checkpoint: Checkpoint, actor: str, source: str) -> None:
        packs = [self._store.add_pack(file) for file in sorted({e.file for e in checkpoint.entries.values()})]
        reach(Point.CREATE_PACKS_PLACED)
        check_file_names(path.name for path in checkpoint.side_files)
        files = {path.name: self._store.put(path.read_bytes(), "file") for path in checkpoint.side_files}
        reach(Point.CREATE_FILES_PLACED)
        manifest = Manifest(
            tensors=_base_records(checkpoint, packs),
            files={name: stored.hash for name, stored in files.items()},
            parents=(),
            recipe=plain_json({"action": "import", "source": source}),
            libraries=library_versions(),
        )
        stored = self._store.put(manifest.to_bytes(), "manifest")
        with self._database.transaction() as connection:
            lay_out(connection)
            self._store.enter_packs(connection, packs)
            self._enter_version(connection, stored, [*files.values()], parent=None, actor=actor)


def _base_records(checkpoint: Checkpoint, packs: list[Pack]) -> dict[str, TensorRecord]:
    hashes = {name: digest for pack in packs for name, digest in pack.tensors.items()}
    if hashes.keys() != checkpoint.entries.keys():
        odd = sorted(hashes.keys() ^ checkpoint.entries.keys())
        raise ModelError(f"{checkpoint.folder} changed while it was copied: {', '.join(odd[:3])}")
    return {
        name: TensorRecord(hash=hashes[name], dtype=dtype_name(entry.dtype), shape=tuple(entry.shape))
        for name, entry in checkpoint.entries.items()
    }


def _check_fits(delta: Delta, manifest: Manifest, parent: str, added: Mapping[str, Tensor]) -> None:
    twice = sorted(set(added) & set(manifest.tensors))
    if twice:
        raise SettingError(f"{parent} has {twice[0]!r} already; it cannot be added")
    shapes = {name: record.shape for name, record in manifest.tensors.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in added.items()}
    for name, change in delta.changes.items():
        if name not in shapes:
            raise SettingError(f"the delta changes {name!r}, which {parent} does not have")
        shape = shapes[name]
        if tuple(change.shape) != shape:
            raise SettingError(f"the delta's change of {name} has shape {tuple(change.shape)}, not {shape}")


def _read(reader: TensorReader, version: Version, name: str, record: TensorRecord) -> Tensor:
    """A tensor of a version, verified; an error names object, version and tensor."""
    try:
        tensor = reader.tensor(record.hash)
        _check_record(tensor, record)
    except IntegrityError as error:
        raise IntegrityError(f"{version.name}, tensor {name}: {error}") from error
    return tensor


def _check_record(tensor: Tensor, record: TensorRecord) -> None:
    if dtype_name(tensor.dtype) != record.dtype or tuple(tensor.shape) != record.shape:
        found = f"{dtype_name(tensor.dtype)} {tuple(tensor.shape)}"
        raise IntegrityError(f"object {record.hash} is {found}, not {record.dtype} {record.shape}")
