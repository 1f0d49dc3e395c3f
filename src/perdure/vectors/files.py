"""Traits and vectors as files: small safetensors with everything about them in the header, and no training data.

Shape suffixes: L layers, H query heads, K head size.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from perdure.content import canonical_json, write_atomic
from perdure.errors import IntegrityError
from perdure.vectors.studies import Evidence, Traits

_HEADER = "perdure"


def write_traits(path: Path, traits: Traits, about: Mapping[str, Any]) -> None:
    """Write what the heads of a model do in one function.

    Args:
        path: The file; replaced as a whole.
        traits: What was found.
        about: JSON that is kept with it: which model, which data, which settings.
    """
    evidence = traits.evidence
    tensors = {
        "mean_LHK": traits.mean_LHK.float().contiguous(),
        "effect_LH": traits.effect_LH.double().contiguous(),
        "clean": torch.tensor(evidence.clean, dtype=torch.uint8),
        "shuffled": torch.tensor(evidence.shuffled, dtype=torch.uint8),
    }
    header = {**about, "name": traits.name, "reason": evidence.reason}
    write_atomic(path, save(tensors, {_HEADER: canonical_json(header)}))


def read_traits(path: Path) -> tuple[Traits, dict[str, Any]]:
    """What `write_traits` wrote, and what is kept with it.

    Raises:
        IntegrityError: The file is damaged or something else.
    """
    tensors, header = read_tensors(path)
    try:
        clean, shuffled = (tuple(bool(hit) for hit in tensors[name]) for name in ("clean", "shuffled"))
        evidence = Evidence(clean, shuffled, str(header.pop("reason")))
        return Traits(str(header.pop("name")), evidence, tensors["mean_LHK"], tensors["effect_LH"]), header
    except KeyError as error:
        raise IntegrityError(f"{path} has no {error}; it holds no traits of heads") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a small safetensors file and the JSON in its header.

    Raises:
        IntegrityError: It cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is damaged or was not written by perdure: {error}") from error
