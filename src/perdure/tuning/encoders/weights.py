"""Which tensors of an encoder are trained: those that what a probe reads depends on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from perdure.errors import SettingError
from perdure.models.adapters import is_projection
from perdure.models.encoders import Encoder, Side
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.prepared import COUNTS, Prepared
from perdure.tuning.trained import Trained, dense_attached, lora_attached


@contextmanager
def encoder_attached(
    encoder: Encoder, side: Side, config: EncoderTuningConfig, items: Prepared
) -> Iterator[tuple[Any | None, Trained]]:
    """While open, the encoder with what the settings train: its wrapper where it has adapters, and the weights.

    Afterwards the encoder is as it was.
    """
    names = read_tensors(encoder, side, items)
    if config.method == "full":
        chosen = _ending(names, config.targets)
        with dense_attached(encoder.model, chosen) as (_, trained):
            yield None, trained
        return
    adapted = _ending(_projections(encoder, side, names), config.targets)
    modules = [name.removesuffix(".weight") for name in adapted]
    shape: dict[str, Any] = {"rank": config.rank, "alpha": config.alpha, "dropout": 0.0, "seed": config.seed}
    with lora_attached(encoder.model, modules, **shape) as (wrapper, adapters):
        yield wrapper, adapters


def read_tensors(encoder: Encoder, side: Side, items: Prepared) -> list[str]:
    """The names of the tensors that what a probe reads depends on, found by a backward pass of one item.

    Another tower, a classifier or a pooler that is passed over are none of them.
    """
    model = encoder.model
    weights = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    flags = {name: weight.requires_grad for name, weight in weights.items()}
    inputs = {name: value.to(encoder.device) for name, value in items.batch([0]).items() if name != COUNTS}
    kind = next(model.parameters()).dtype
    inputs = {name: value.to(kind) if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        with torch.enable_grad():
            pooled_BD = encoder.seen(side, inputs, grad=True).pooled_BD
            found = torch.autograd.grad(pooled_BD.float().sum(), list(weights.values()), allow_unused=True)
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(flags[name])
    return [name for name, gradient in zip(weights, found, strict=True) if gradient is not None]


def _projections(encoder: Encoder, side: Side, names: Sequence[str]) -> list[str]:
    """The weights of the linear modules of the stages, by their names in the model.

    Raises:
        SettingError: There are none, as in a convolutional net.
    """
    found = [
        f"{stage}.{name}.weight"
        for stage, module in encoder.stages(side).items()
        for name, part in module.named_modules()
        if is_projection(part) and f"{stage}.{name}.weight" in names
    ]
    if not found:
        raise SettingError(
            f"method=lora adapts linear projections, and the stages of {type(encoder.model).__name__} have none; "
            "take method=full"
        )
    return found


def _ending(names: Sequence[str], endings: Sequence[str] | None) -> list[str]:
    """Those whose name, or whose module's name, ends so; all when nothing is given.

    Raises:
        SettingError: None ends so.
    """
    if endings is None:
        return list(names)

    def ends(name: str, end: str) -> bool:
        return any(each == end or each.endswith(f".{end}") for each in (name, name.rpartition(".")[0]))

    missing = [end for end in endings if not any(ends(name, end) for name in names)]
    if missing:
        known = sorted({name.rpartition(".")[0].rpartition(".")[2] or name for name in names})
        raise SettingError(f"targets: nothing that is trained ends in {missing[0]!r}. There are: {', '.join(known)}")
    return [name for name in names if any(ends(name, end) for end in endings)]
