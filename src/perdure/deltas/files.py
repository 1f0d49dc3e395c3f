"""Deltas on disk: one safetensors file with its JSON in the header."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from perdure.content import atomic_path, canonical_json
from perdure.deltas.delta import Change, Delta, LowRank
from perdure.errors import IntegrityError

_KEY = "perdure.delta"  # a single metadata key: the header's bytes are then the same on every run


def save_delta(delta: Delta, path: Path) -> None:
    """Write a delta to `path`, atomically; the same delta always gives the same bytes."""
    tensors: dict[str, Tensor] = {}
    for name, change in delta.changes.items():
        if change.low_rank is not None:
            tensors[f"left/{name}"] = change.low_rank.left.contiguous().cpu()
            tensors[f"right/{name}"] = change.low_rank.right.contiguous().cpu()
        if change.dense is not None:
            tensors[f"dense/{name}"] = change.dense.contiguous().cpu()
    for name, key_IN in delta.keys.items():
        tensors[f"keys/{name}"] = key_IN.contiguous().cpu()
    for fact, value_2D in delta.values.items():
        tensors[f"values/{fact}"] = value_2D.contiguous().cpu()
    header = canonical_json({"format": 1, "names": sorted(delta.changes), "notes": dict(delta.notes)})
    with atomic_path(path) as scratch:
        save_file(tensors, scratch, metadata={_KEY: header})


def load_delta(path: Path) -> Delta:
    """Read a delta written by `save_delta`.

    Raises:
        IntegrityError: The file is missing, cut off, not a delta, or holds NaN.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            header: dict[str, Any] = json.loads((stream.metadata() or {})[_KEY])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is not a readable delta: {error}") from error
    try:
        changes = {name: _change(name, tensors) for name in header["names"]}
        return Delta(changes, _under("keys/", tensors), header["notes"], _under("values/", tensors)).check_finite()
    except ValueError as error:
        raise IntegrityError(f"{path} is a damaged delta: {error}") from error


def load_notes(path: Path) -> dict[str, Any]:
    """The notes of a delta written by `save_delta`; no tensor is read.

    Raises:
        IntegrityError: The file is missing, cut off, or not a delta.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            notes: dict[str, Any] = json.loads((stream.metadata() or {})[_KEY])["notes"]
            return notes
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path} is not a readable delta: {error}") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _change(name: str, tensors: dict[str, Tensor]) -> Change:
    left, right = tensors.get(f"left/{name}"), tensors.get(f"right/{name}")
    low_rank = LowRank(left, right) if left is not None and right is not None else None
    return Change(low_rank, tensors.get(f"dense/{name}"))
