"""The towers of an encoder, found by structure: what is run for images or texts, its stages, what a probe reads.

Shape suffixes: B rows, T tokens or places of an image, D features, H and W of a map.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perdure.errors import ModelError
from perdure.models.adapters import bare

Side = Literal["image", "text"]
"""What a tower reads."""


@dataclass(frozen=True)
class Tower:
    """One side of an encoder.

    Attributes:
        side: What it reads.
        run: Called with the inputs as keyword arguments; gives what the class gives.
        trunk: The bare model inside, from its embeddings to its last hidden state.
        stages: Its transformer blocks, or the stages of a convolutional net, in depth order, by their names in the
            whole model.
    """

    side: Side
    run: Any
    trunk: Any
    stages: Mapping[str, nn.Module]


def towers_of(model: Any) -> dict[Side, Tower]:
    """The towers of an encoder by what they read; adapters are looked through.

    Raises:
        ModelError: The structure is not understood.
    """
    inside = bare(model)
    names = {id(module): name for name, module in inside.named_modules()}
    runs: dict[Side, Any] = {}
    if hasattr(inside, "get_image_features") and hasattr(inside, "get_text_features"):
        runs = {"image": inside.get_image_features, "text": inside.get_text_features}
    found: dict[Side, Tower] = {}
    for trunk in _trunks(inside):
        side: Side = "image" if trunk.main_input_name == "pixel_values" else "text"
        run = runs.get(side, _outer(inside, trunk))
        if side not in found:
            found[side] = Tower(side, run, trunk, _stages(trunk, names))
    if not found or runs.keys() - found.keys():
        raise ModelError(
            f"{type(inside).__name__} is no encoder that is understood: it must hold a model of images or texts that "
            "transformers knows, such as CLIPModel, ViTModel, ResNetModel or BertModel"
        )
    return {side: found[side] for side in ("image", "text") if side in found}


def _trunks(inside: Any) -> list[Any]:
    """The outermost models inside that read images or texts alone and have no head."""
    found: list[Any] = []
    within: list[str] = []
    for name, module in inside.named_modules():
        if not any(name.startswith(place) for place in within) and _is_trunk(module, part=bool(name)):
            found.append(module)
            within.append(f"{name}." if name else "")
    return found


def _is_trunk(module: Any, *, part: bool) -> bool:
    """Whether a module is the bare model of its own config; or a part of a model of two towers."""
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if not isinstance(module, PreTrainedModel) or module.main_input_name not in ("pixel_values", "input_ids"):
        return False
    if hasattr(module, "get_image_features"):  # holds both
        return False
    kind = type(module.config)
    return isinstance(module, MODEL_MAPPING[kind]) if kind in MODEL_MAPPING else part


def _outer(inside: Any, trunk: Any) -> Any:
    """What is called for one tower: the whole model where it projects what its trunk gives, else the trunk."""
    projects = any(isinstance(getattr(inside, name, None), nn.Linear) for name in _PROJECTIONS)
    return inside if projects else trunk


_PROJECTIONS = ("visual_projection", "text_projection")


def _stages(trunk: Any, names: Mapping[int, str]) -> dict[str, nn.Module]:
    """The modules of the outermost list in a trunk; of several equally deep ones the first."""
    lists = [
        (name.count("."), place, module)
        for place, (name, module) in enumerate(trunk.named_modules())
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    if not lists:
        raise ModelError(f"{type(trunk).__name__} has no list of blocks or stages; its features cannot be told apart")
    return {names[id(module)]: module for module in min(lists, key=lambda entry: entry[:2])[2]}


def pooled_of(tower: Tower, output: Any, mask_BT: Tensor | None) -> Tensor:
    """What a linear probe reads [B, D] in what the tower gave.

    - A projection (CLIP): the projected embedding.
    - A map (convolutional nets): its mean over all places, normalised where the class does so.
    - Texts: the mean over tokens that are not padding, as sentence encoders do.
    - Other images: the class's own pooling; of ViT the first token.

    A pooler that is a dense layer and a tanh over the first token (BERT, ViT) is passed over: it was trained for
    another purpose, or not at all, and the classes that classify images do not read it either.

    Args:
        tower: The tower.
        output: What running it gave.
        mask_BT: Which tokens count; None for all.
    """
    if isinstance(output, Tensor):
        return output
    projected = getattr(output, f"{tower.side}_embeds", None)
    own = getattr(output, "pooler_output", None) if projected is None else projected
    if own is not None and not hasattr(getattr(tower.trunk, "pooler", None), "dense"):
        return torch.as_tensor(own).flatten(1)
    hidden: Tensor = output.last_hidden_state
    if hidden.dim() == 4:
        return hidden.mean((2, 3))
    return hidden[:, 0] if tower.side == "image" else masked_mean(hidden, mask_BT)


def masked_mean(hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The mean over the tokens that count [B, D]; over all of them without a mask."""
    if mask_BT is None:
        return hidden_BTD.mean(1)
    weight_BT1 = mask_BT.to(hidden_BTD)[..., None]
    return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


def as_tokens(hidden: Tensor) -> Tensor:
    """Features as [B, T, D]; of a map [B, D, H, W] its places row by row, without a copy."""
    return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden
