"""Heads of encoders as files of a version: one for each labelled set that was learnt, named by the set."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.content import write_synced
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.tuning.encoders.heads import Head
    from perdure.workspace.workspace import Workspace

HEADS = "heads"


def head_name(digest: str) -> str:
    """The name in the manifest of the head that learnt the set with this digest."""
    return f"head.{digest[:16]}.safetensors"


def head_bytes(head: "Head") -> bytes:
    """A head as the bytes of its file."""
    from perdure.tuning.encoders.heads import save_head

    with tempfile.TemporaryDirectory() as scratch:
        save_head(head, Path(scratch) / "head.safetensors")
        return (Path(scratch) / "head.safetensors").read_bytes()


def heads_of(shop: "Workspace", version: Version) -> dict[str, "Head"]:
    """The heads of a version by their names in the manifest, each verified by its hash.

    Raises:
        IntegrityError: A head is missing or damaged.
    """
    from perdure.tuning.encoders.heads import load_head

    with tempfile.TemporaryDirectory() as scratch:
        found = shop.archive.head_files(version)
        export_heads(found, Path(scratch))
        return {name: load_head(Path(scratch) / name.removeprefix("head.")) for name in found}


def export_heads(files: Mapping[str, bytes], folder: Path) -> None:
    """Write heads to a folder, each under the first digits of its set's digest; nothing without any."""
    for name, data in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(folder / name.removeprefix("head."), data)
