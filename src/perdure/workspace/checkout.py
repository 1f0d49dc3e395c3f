"""A version as an ordinary model folder, written whole or not at all, one tensor in memory at a time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from perdure.content import fresh_folder, write_synced
from perdure.models.tensor_files import Blank, write_tensors
from perdure.workspace.encodings import DTYPES
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.manifest import Manifest

SHARD_BYTES = 5 * 10**9
Read = Callable[[str], Tensor]


def _nothing(_scratch: Path) -> None:
    pass


def write_folder(
    folder: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    read: Read,
    *,
    finish: Callable[[Path], None] = _nothing,
) -> None:
    """Write a folder that `from_pretrained` loads.

    Args:
        folder: Where to; missing or empty.
        manifest: The version's tensors.
        files: The side files' contents by name, the names already checked.
        read: Gives a tensor by name, verified; asked for one at a time.
        finish: Adds what else belongs there, before the folder takes its name.

    Raises:
        SettingError: The folder is not empty.
    """
    with fresh_folder(folder) as scratch:
        reach(Point.CHECKOUT_FOLDER_MADE)
        for name, data in files.items():
            write_synced(scratch / name, data)
        reach(Point.CHECKOUT_FILES_WRITTEN)
        _write_weights(scratch, manifest, read)
        reach(Point.CHECKOUT_WEIGHTS_WRITTEN)
        finish(scratch)
    reach(Point.CHECKOUT_RENAMED)


def _write_weights(folder: Path, manifest: Manifest, read: Read) -> None:
    blanks = {name: Blank(DTYPES[record.dtype], record.shape) for name, record in manifest.tensors.items()}
    empty = {name: torch.empty(blank.shape, dtype=blank.dtype, device="meta") for name, blank in blanks.items()}
    plan = split_torch_state_dict_into_shards(empty, max_shard_size=SHARD_BYTES)
    for file, names in plan.filename_to_tensors.items():
        write_tensors(folder / file, {name: blanks[name] for name in names}, read, metadata={"format": "pt"})
    if len(plan.filename_to_tensors) > 1:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_synced(folder / "model.safetensors.index.json", json.dumps(index, indent=2).encode())
