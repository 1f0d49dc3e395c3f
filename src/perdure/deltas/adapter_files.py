"""LoRA adapters of peft, read and written as what they are: low-rank deltas of their base.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, equation 3: W + s·BA with s = α / r,
or α / √r with rank stabilisation (Kalajdzievski, arXiv 2312.03732). Shape suffixes: O outputs, I inputs, R rank.
"""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from perdure.content import canonical_json
from perdure.deltas.delta import Change, Delta, LowRank
from perdure.errors import ModelError, SettingError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MERGE = (
    "Merge it with peft (PeftModel.from_pretrained(base, folder).merge_and_unload()), save the merged model with "
    "save_pretrained, and give that folder"
)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> tuple[str, Delta]:
    """The base that an adapter names, and the adapter as a delta of it.

    Raises:
        ModelError: It is damaged, names no base, or is no plain LoRA: DoRA, other methods, modules trained as a
            whole, biases, embeddings, scales that differ between matrices.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"the adapter in {folder} is damaged: {CONFIG} holds no settings")
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{folder / CONFIG} names no base (base_model_name_or_path); write there which it is")
    _refuse_others(folder, config)
    changes = {}
    for key in sorted(tensors):
        place, _, kind = key.removeprefix(_PREFIX).rpartition(".lora_")
        if kind == "B.weight":
            continue
        other = tensors.get(f"{key.removesuffix('A.weight')}B.weight")
        if kind != "A.weight" or not key.startswith(_PREFIX) or other is None or other.dim() != 2:
            raise ModelError(f"the adapter in {folder} holds {key!r}, which is no part of a plain LoRA. {_MERGE}")
        try:
            changes[f"{place}.weight"] = _change(tensors[key], other, config)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"the adapter in {folder} is damaged, at {key!r}: {error!r}") from error
    if 2 * len(changes) != len(tensors):
        raise ModelError(f"the adapter in {folder} is damaged: factors without their partner")
    return str(base), Delta(changes).check_finite()


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    odd = {
        "of kind " + str(config.get("peft_type")): config.get("peft_type") != "LORA",
        "a DoRA": config.get("use_dora"),
        "with scales of its own for some matrices (alpha_pattern)": config.get("alpha_pattern"),
        "with modules trained as a whole (modules_to_save)": config.get("modules_to_save"),
        "with biases": config.get("lora_bias") or config.get("bias", "none") != "none",
    }
    found = [what for what, given in odd.items() if given]
    if found:
        raise ModelError(f"the adapter in {folder} is {found[0]}, not a plain LoRA. {_MERGE}")


def _change(a_RI: Tensor, b_OR: Tensor, config: dict[str, Any]) -> Change:
    rank = a_RI.shape[0]
    scale = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    left, right = b_OR.float() * scale, a_RI.float()
    if config.get("fan_in_fan_out"):  # the matrix is stored [I, O]
        left, right = right.T, left.T
    return Change(LowRank(left.contiguous(), right.contiguous()))


def adapter_files(delta: Delta, base: str, *, transposed: bool = False) -> dict[str, bytes]:
    """The files of an adapter that `PeftModel.from_pretrained` loads, by name; the same delta gives the same bytes.

    α is the largest rank, so that factors of that rank stand as they are; the left factors of matrices of a lower
    rank are multiplied by rank / α, which peft's scale α / rank takes back.

    Args:
        delta: Low-rank changes of matrices, each the `weight` of a module.
        base: What the adapter is to name as its base.
        transposed: The matrices are stored [I, O] (GPT-2's Conv1D).

    Raises:
        SettingError: A change that is not low-rank or not of a module's weight, or no change at all.
    """
    odd = [name for name, change in delta.changes.items() if not change.is_low_rank or not name.endswith(".weight")]
    factors = {
        name.removesuffix(".weight"): change.low_rank
        for name, change in sorted(delta.changes.items())
        if change.low_rank is not None and change.low_rank.rank
    }
    if odd or not factors:
        what = f"{odd[0]} is none" if odd else "there is none"
        raise SettingError(f"an adapter holds low-rank changes of matrices; {what}. Lower its rank with compress")
    alpha = max(factor.rank for factor in factors.values())
    tensors = {
        f"{_PREFIX}{module}.lora_{side}.weight": tensor
        for module, factor in factors.items()
        for side, tensor in _sides(factor, alpha, transposed).items()
    }
    config = _config({module: factor.rank for module, factor in factors.items()}, base, transposed)
    return {CONFIG: canonical_json(config).encode(), WEIGHTS: save(tensors, {"format": "pt"})}


def _sides(factor: LowRank, alpha: int, transposed: bool) -> dict[str, Tensor]:
    left, right = factor.left.detach().cpu().float(), factor.right.detach().cpu().float()
    a_RI, b_OR = (left.T, right.T) if transposed else (right, left)
    return {"A": a_RI.clone().contiguous(), "B": (b_OR * (factor.rank / alpha)).contiguous()}


def _config(ranks: dict[str, int], base: str, transposed: bool) -> dict[str, Any]:
    largest = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "target_modules": sorted(ranks),
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != largest},
    }
