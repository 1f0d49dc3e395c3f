"""The objects of a workspace: tensors and documents on disk, each found by its hash and checked by it.

The base version's tensors lie in packs (the checkpoint's own safetensors files, copied once); tensors
that edits made lie in loose files, mostly as factors against the tensor that they were made from.
"""

import json
import os
import secrets
import shutil
import sqlite3
import stat
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.content import (
    canonical_json,
    digest_bytes,
    digest_file,
    digest_json,
    digest_tensor,
    remove_if_free,
    sync_folder,
)
from perdure.deltas import Change, LowRank
from perdure.errors import IntegrityError, ModelError
from perdure.workspace import encodings
from perdure.workspace.database import Database
from perdure.workspace.encodings import Encoded
from perdure.workspace.failpoints import Point, reach

DEEPEST = 8  # references from a tensor back to one that stands alone
_KEY = "perdure.object"
_READERS_FOLDER_S = 3600.0
_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True)
class StoredObject:
    """A loose object: what the database knows of it.

    Attributes:
        hash: Its name: of the resulting tensor, or of the file's bytes for other kinds.
        kind: "tensor", "file", "delta", "report" or "manifest".
        bytes: The file's size.
        digest: sha256 of the file's bytes.
        reference: The hash of the tensor it is encoded against, if any.
        depth: How many references lead to a tensor that stands alone.
    """

    hash: str
    kind: str
    bytes: int
    digest: str
    reference: str | None = None
    depth: int = 0


@dataclass(frozen=True)
class Pack:
    """A copied safetensors file of the base version.

    Attributes:
        id: sha256 over its header and its tensors' hashes.
        bytes: The file's size.
        header: sha256 of the file's header, which with the tensors' hashes covers every byte.
        tensors: From tensor name to the tensor's hash.
    """

    id: str
    bytes: int
    header: str
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Factors:
    """What makes a tensor out of another.

    Attributes:
        low_rank: The factors of the sum.
        reference: The hash of the tensor that they are added to.
    """

    low_rank: LowRank
    reference: str


class ObjectStore:
    """Writes and reads objects; which ones exist is listed in the database by the caller's transaction."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.objects = folder / "objects"
        self.packs = self.objects / "packs"
        self.scratch = folder / "tmp"
        self._database = database

    def lay_out(self) -> None:
        """Make the folders."""
        for folder in (self.objects, self.packs, self.scratch):
            folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.objects)

    def sweep(self) -> int:
        """Remove what a crash left in the temporary folder; how many entries. Needs the writer's lock.

        Files belong to writers. Folders belong to readers, which do not hold it: only old ones go that nobody locked.
        """
        if self.scratch.is_symlink():
            raise IntegrityError(f"{self.scratch} is a symbolic link; remove it")
        self.scratch.mkdir(mode=0o700, exist_ok=True)
        removed = 0
        for path in self.scratch.iterdir():
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif time.time() - path.stat().st_mtime > _READERS_FOLDER_S:
                remove_if_free(path)
            removed += not path.exists()
        return removed

    def path(self, name: str) -> Path:
        """Where the loose object of that hash lies."""
        return self.objects / checked_hash(name)[:2] / name

    def pack_path(self, pack: str) -> Path:
        """Where the pack of that id lies."""
        return self.packs / f"{checked_hash(pack)}.safetensors"

    # Listing

    def listed(self, name: str) -> StoredObject | None:
        """What the database knows of a loose object; None if nothing."""
        query = "SELECT hash, kind, bytes, digest, reference, depth FROM objects WHERE hash = ?"
        row = self._database.connection().execute(query, (name,)).fetchone()
        return None if row is None else StoredObject(**dict(row))

    def packed(self, name: str) -> tuple[str, str] | None:
        """The pack and the name in it of a packed tensor; None if it is not packed."""
        query = "SELECT pack, name FROM packed WHERE hash = ? ORDER BY pack, name LIMIT 1"
        row = self._database.connection().execute(query, (name,)).fetchone()
        return None if row is None else (row["pack"], row["name"])

    def rows(self, query: str, *parameters: str) -> list[sqlite3.Row]:
        """The answer of the database to a question about objects."""
        return self._database.connection().execute(query, parameters).fetchall()

    def enter(self, connection: sqlite3.Connection, made: Iterable[StoredObject], added_by: int | None) -> None:
        """List loose objects as part of the caller's transaction."""
        rows = [(o.hash, o.kind, o.bytes, o.digest, o.reference, o.depth, added_by) for o in made]
        connection.executemany("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?,?)", rows)
        reach(Point.OBJECTS_LISTED)

    def heal(self, connection: sqlite3.Connection, made: Iterable[StoredObject]) -> None:
        """List tensors anew that lay damaged and were written again, as part of the caller's transaction."""
        for known in made:
            row = (known.bytes, known.digest, known.reference, known.depth, known.hash)
            connection.execute("UPDATE objects SET bytes = ?, digest = ?, reference = ?, depth = ? WHERE hash = ?", row)
            self._settle(connection, known.hash, known.depth)

    def _settle(self, connection: sqlite3.Connection, name: str, depth: int) -> None:
        """Correct the depth of what leans on an object, directly or not."""
        query = "UPDATE objects SET depth = ? WHERE reference = ? RETURNING hash"
        for row in connection.execute(query, (depth + 1, name)).fetchall():
            self._settle(connection, row["hash"], depth + 1)

    def enter_packs(self, connection: sqlite3.Connection, packs: Iterable[Pack]) -> None:
        """List the base version's packs as part of the caller's transaction."""
        for pack in packs:
            connection.execute("INSERT INTO packs VALUES (?,?,?,0)", (pack.id, pack.bytes, pack.header))
            rows = [(name_hash, pack.id, name) for name, name_hash in pack.tensors.items()]
            connection.executemany("INSERT INTO packed VALUES (?,?,?)", rows)

    # Writing

    def put(self, data: bytes, kind: str) -> StoredObject:
        """Store a document under the hash of its bytes."""
        name = digest_bytes(data)
        self._write(data, name)
        return StoredObject(name, kind, len(data), name)

    def adopt(self, path: Path, kind: str) -> StoredObject:
        """Move a file from the temporary folder to the objects, under the hash of its bytes."""
        name, size = digest_file(path), path.stat().st_size
        path.chmod(0o600)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        self._place(path, self.path(name))
        return StoredObject(name, kind, size, name)

    def put_tensor(
        self, new: Tensor, reference: Tensor | None, change: Change | None
    ) -> tuple[str, StoredObject | None]:
        """Store a tensor and read it back; its hash, and the object unless it was there already.

        Args:
            new: The tensor; `changed(reference, change)` where there is a reference.
            reference: The stored tensor that it was made from; None for one that is new.
            change: What was added.

        Raises:
            IntegrityError: What was written reads back differently, twice.
        """
        name = digest_tensor(new)
        known = self.listed(name) or self.packed(name)
        if known and self._reads(name):
            return name, None
        parent = None if reference is None else digest_tensor(reference)
        depth = 0 if parent is None else self._depth(parent) + 1
        # A damaged object is healed by a full copy: others may lean on it, so it leans on nothing.
        alone = known is not None or depth > DEEPEST
        tries = []
        if reference is not None and change is not None and not alone:
            tries.append(encodings.encode(new, reference, change))
        for encoded in [*tries, encodings.encode_full(new)]:
            place = (parent, depth) if encoded.needs_reference else (None, 0)
            made = self._write_tensor(new, name, encoded, place)
            with suppress(IntegrityError):
                TensorReader(self).check(made.hash, made)
                return name, made
        raise IntegrityError(f"object {name}: what was written reads back differently; the disk is failing")

    def add_pack(self, source: Path) -> Pack:
        """Copy a safetensors file into the packs and hash every tensor in it.

        Raises:
            ModelError: A tensor holds NaN or infinity, or the file changed while it was copied.
        """
        scratch = self._scratch_path()
        shutil.copyfile(source, scratch)
        scratch.chmod(0o600)
        reach(Point.CREATE_PACK_COPIED)
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        tensors = _hash_all(scratch, source)
        header, size = _digest_header(scratch), scratch.stat().st_size
        pack = Pack(digest_json({"header": header, "tensors": tensors}), size, header, tensors)
        scratch.replace(self.pack_path(pack.id))
        sync_folder(self.packs)
        return pack

    def scratch_file(self) -> Path:
        """A fresh name in the temporary folder."""
        return self._scratch_path()

    def _scratch_path(self) -> Path:
        return self.scratch / secrets.token_hex(8)

    def _write_tensor(self, new: Tensor, name: str, encoded: Encoded, place: tuple[str | None, int]) -> StoredObject:
        reference, depth = place
        header = {
            "format": 1,
            "encoding": encoded.encoding,
            "reference": reference,
            "dtype": encodings.dtype_name(new.dtype),
            "shape": list(new.shape),
        }
        data = safetensors.torch.save(dict(encoded.parts), metadata={_KEY: canonical_json(header)})
        self._write(data, name)
        return StoredObject(name, "tensor", len(data), digest_bytes(data), reference, depth)

    def _write(self, data: bytes, name: str) -> None:
        scratch = self._scratch_path()
        try:
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                reach(Point.OBJECT_WRITTEN)
                os.fsync(handle)
            finally:
                os.close(handle)
            self._place(scratch, self.path(name))
        finally:
            scratch.unlink(missing_ok=True)

    def _place(self, scratch: Path, final: Path) -> None:
        reach(Point.OBJECT_SYNCED)
        _refuse_links(self.objects, final.parent)
        if not final.parent.is_dir():
            final.parent.mkdir(mode=0o700)
            sync_folder(self.objects)
        scratch.replace(final)
        reach(Point.OBJECT_RENAMED)
        sync_folder(final.parent)

    def _depth(self, name: str) -> int:
        known = self.listed(name)
        return known.depth if known else 0

    def _reads(self, name: str) -> bool:
        try:
            TensorReader(self).tensor(name)
        except IntegrityError:
            return False
        return True

    # Reading

    def read(self, name: str) -> bytes:
        """The bytes of a document, checked against its hash.

        Raises:
            IntegrityError: The file is missing, no plain file, or has other bytes.
        """
        path = self._plain_file(self.path(name), f"object {name}")
        data = path.read_bytes()
        if digest_bytes(data) != name:
            raise IntegrityError(f"object {name}: its bytes have another hash; the file is damaged")
        return data

    def delta_file(self, name: str) -> Path:
        """The file of a stored document, its hash checked."""
        self.read(name)
        return self.path(name)

    def loose_file(self, known: StoredObject, *, hashed: bool = True) -> Path:
        """The file of a loose object, its size and (unless told otherwise) its digest checked."""
        what = f"object {known.hash}"
        path = self._plain_file(self.path(known.hash), what)
        if path.stat().st_size != known.bytes:
            raise IntegrityError(
                f"{what}: it has {path.stat().st_size} bytes instead of {known.bytes}; the file is damaged"
            )
        if hashed and digest_file(path) != known.digest:
            raise IntegrityError(f"{what}: its bytes have another hash; the file is damaged")
        return path

    def pack_file(self, pack: str) -> Path:
        """The file of a pack, its size and its header checked."""
        what = f"pack {pack}"
        row = self._database.connection().execute("SELECT * FROM packs WHERE id = ?", (pack,)).fetchone()
        if row is None:
            raise IntegrityError(f"{what} is not listed in the database")
        path = self._plain_file(self.pack_path(pack), what)
        if path.stat().st_size != row["bytes"]:
            raise IntegrityError(
                f"{what}: it has {path.stat().st_size} bytes instead of {row['bytes']}; the file is damaged"
            )
        if _digest_header(path) != row["header"]:
            raise IntegrityError(f"{what}: its header has another hash; the file is damaged")
        return path

    def _plain_file(self, path: Path, what: str) -> Path:
        _refuse_links(self.objects, path.parent)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            raise IntegrityError(f"{what}: its file is missing") from None
        except OSError as error:
            raise IntegrityError(f"{what}: its file cannot be read: {error}") from error
        if not stat.S_ISREG(mode):
            raise IntegrityError(f"{what}: {path.name} is a link or no plain file and is not followed")
        return path


class TensorReader:
    """Reads tensors of one store, opening each pack once; unchanged tensors stay memory-mapped."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._packs: dict[str, Any] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that hash, its hash and finiteness checked.

        Raises:
            IntegrityError: It is missing, damaged, or not finite; the message names the object.
        """
        return self.check(name, self._store.listed(name))

    def check(self, name: str, known: StoredObject | None) -> Tensor:
        """The tensor of that hash read from a given loose object, or from its pack if there is none."""
        tensor = self._loose(known) if known is not None else self._from_pack(name)
        if digest_tensor(tensor) != name:
            if known is not None and known.reference is not None:
                self.tensor(known.reference)  # if the fault lies there, its name is raised
            where = "its file" if known is not None else f"pack {(self._store.packed(name) or ('?',))[0]}"
            raise IntegrityError(f"object {name}: its numbers have another hash; {where} is damaged")
        if not encodings.is_finite(tensor):
            raise IntegrityError(f"object {name}: it holds NaN or infinite numbers")
        return tensor

    def check_copies(self, pack: str) -> None:
        """Check every tensor of a pack, those that are copies of others included.

        Raises:
            IntegrityError: One has another hash.
        """
        query = "SELECT hash, name FROM packed WHERE pack = ? ORDER BY name"
        for name, inside in self._store.rows(query, pack):
            self._packs.clear()  # what was mapped for the one before leaves memory
            if self._store.packed(name) != (pack, inside) and digest_tensor(self._inside(pack, inside)) != name:
                raise IntegrityError(f"object {name}: its copy {inside} in pack {pack} is damaged")

    def _raw(self, name: str, below: int) -> Tensor:
        """A reference, its hash left to the check of what is built on it."""
        known = self._store.listed(name)
        if known is None:
            return self._from_pack(name)
        if known.depth >= below:
            raise IntegrityError(f"object {name}: its references run in a circle; the database was changed")
        return self._loose(known)

    def factors(self, name: str) -> Factors | None:
        """The factors of a tensor that is stored as a low-rank sum, and what they are added to; else None.

        Raises:
            IntegrityError: The object is missing or damaged.
        """
        known = self._store.listed(name)
        if known is None:
            return None
        encoded, _, _ = self._opened(known)
        if encoded.encoding != encodings.LOW_RANK or known.reference is None:
            return None
        return Factors(LowRank(encoded.parts["left"], encoded.parts["right"]), known.reference)

    def _loose(self, known: StoredObject) -> Tensor:
        encoded, dtype, shape = self._opened(known)
        base = None if known.reference is None else self._raw(known.reference, known.depth)
        try:
            return encodings.decode(encoded, dtype, shape, base)
        except IntegrityError as error:
            raise IntegrityError(f"object {known.hash}: {error}") from error

    def _opened(self, known: StoredObject) -> tuple[Encoded, torch.dtype, tuple[int, ...]]:
        """What a loose tensor object holds, and the dtype and shape of the tensor; its file is checked."""
        what = f"object {known.hash}"
        path = self._store.loose_file(known)
        try:
            with safe_open(path, framework="pt") as stream:
                header = json.loads((stream.metadata() or {})[_KEY])
                parts = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            encoding, reference, shape = header["encoding"], header["reference"], tuple(header["shape"])
            dtype = encodings.DTYPES[header["dtype"]]
        except _UNREADABLE as error:
            raise IntegrityError(f"{what}: it is no tensor object: {error}") from error
        if encoding not in encodings.ENCODINGS or reference != known.reference:
            raise IntegrityError(f"{what}: its header is not what the database says")
        return Encoded(encoding, parts), dtype, shape

    def _from_pack(self, name: str) -> Tensor:
        place = self._store.packed(name)
        if place is None:
            raise IntegrityError(f"object {name} is not listed in the database")
        try:
            return self._inside(*place)
        except IntegrityError as error:
            raise IntegrityError(f"object {name}: {error}") from error

    def _inside(self, pack: str, inside: str) -> Tensor:
        try:
            if pack not in self._packs:
                self._packs[pack] = safe_open(self._store.pack_file(pack), framework="pt")
            tensor: Tensor = self._packs[pack].get_tensor(inside)
        except _UNREADABLE as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError(f"pack {pack} does not give {inside}: {error}") from error
        return tensor


def checked_hash(name: str) -> str:
    """The name, if it is a sha256 in hexadecimal; so nothing from the database can lead elsewhere.

    Raises:
        IntegrityError: It is anything else.
    """
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise IntegrityError(f"{name!r} is no hash; the database or a manifest was changed")
    return name


def _refuse_links(*folders: Path) -> None:
    for folder in folders:
        if folder.is_symlink():
            raise IntegrityError(f"{folder} is a symbolic link and is not followed; remove it")


def _digest_header(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return digest_bytes(start + stream.read(min(length, path.stat().st_size)))


def _hash_all(path: Path, source: Path) -> dict[str, str]:
    """The hash of every tensor in a safetensors file; the file is mapped anew for each, so none stays in memory."""
    found: dict[str, str] = {}
    try:
        with safe_open(path, framework="pt") as stream:
            names = list(stream.keys())
        for name in names:
            with safe_open(path, framework="pt") as stream:
                tensor: torch.Tensor = stream.get_tensor(name)
            if not encodings.is_finite(tensor):
                raise ModelError(f"{name} in {source} holds NaN or infinite numbers; the checkpoint is damaged")
            found[name] = digest_tensor(tensor)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{source} changed while it was copied, or is damaged: {error}") from error
    return found
