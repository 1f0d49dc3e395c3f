"""Garbage: files among the objects that nothing refers to, moved aside and never deleted."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from perdure.content import sync_folder
from perdure.workspace.manifest import Manifest
from perdure.workspace.objects import ObjectStore
from perdure.workspace.records import GarbageReport


def marked(connection: sqlite3.Connection, manifests: Iterable[tuple[str, Manifest]]) -> set[str]:
    """The hashes of every object that a version, a report or an approval needs.

    Args:
        connection: To the workspace's database.
        manifests: Every version's id and manifest.
    """
    live: set[str] = set()
    for version, manifest in manifests:
        live |= {version, *manifest.files.values(), *([manifest.solved] if manifest.solved else [])}
        live |= {record.hash for record in manifest.tensors.values()}
    live |= {row[0] for row in connection.execute("SELECT digest FROM reports")}
    live |= {row[0] for row in connection.execute("SELECT report FROM approvals WHERE report IS NOT NULL")}
    references = dict(connection.execute("SELECT hash, reference FROM objects").fetchall())
    for name in list(live):
        following = references.get(name)
        while following is not None and following not in live:
            live.add(following)
            following = references.get(following)
    return live


def object_files(store: ObjectStore) -> list[Path]:
    """Every file and link among the objects, packs included."""
    folders = [path for path in store.objects.iterdir() if path.is_dir() and not path.is_symlink()]
    return sorted(path for folder in folders for path in folder.iterdir())


def strike(connection: sqlite3.Connection, live: set[str]) -> None:
    """Take every object that is not marked off the list, within the caller's transaction."""
    listed = [row[0] for row in connection.execute("SELECT hash FROM objects")]
    dead = [(name,) for name in listed if name not in live]
    connection.executemany("DELETE FROM objects WHERE hash = ?", dead)


def quarantine(store: ObjectStore, connection: sqlite3.Connection, live: set[str]) -> GarbageReport:
    """Move every file that is not marked out of the objects."""
    packed = connection.execute("SELECT hash, pack FROM packed")
    packs = {f"{row['pack']}.safetensors" for row in packed if row["hash"] in live}
    aside = store.objects.parent / "quarantine"
    aside.mkdir(mode=0o700, exist_ok=True)
    moved, size = [], 0
    for path in object_files(store):
        if path.name in live or path.name in packs:
            continue
        moved.append(path.name)
        size += path.lstat().st_size
        path.rename(aside / path.name)
        sync_folder(path.parent)
    sync_folder(aside)
    return GarbageReport(tuple(moved), size, len(live))
