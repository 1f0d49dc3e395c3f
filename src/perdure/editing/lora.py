"""LoRA: fine-tuning in low-rank factors beside the MLP matrices; the factors are the delta.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; the adapters are those of peft.
Shape suffixes: O outputs and I inputs of a projection, R rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.deltas import Change, Delta, LowRank
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.editing.training import TrainingConfig, keeping_gradients_off, train
from perdure.models import Projection, layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.layout import tensors_of
from perdure.registry import editors
from perdure.requests import Fact

_ADAPTER = "perdure"


class LoraConfig(TrainingConfig):
    """Settings of LoRA fine-tuning."""

    kind: Literal["lora"] = "lora"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs get adapters; all when not given"
    )
    learning_rate: float = Field(3e-4, gt=0, description="Adam's learning rate")
    rank: int = Field(8, ge=1, description="Rank of each matrix's change")
    alpha: int = Field(16, ge=1, description="The change is B A times alpha / rank")


@editors.register("lora", config=LoraConfig, paper="Hu et al., LoRA, ICLR 2022")
@on_plain_view
def lora(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: LoraConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Adam on the answers of the facts, over low-rank adapters of all MLP matrices: a delta of that rank.

    The loss is that of plain fine-tuning. The model is left as it was, with its own modules.

    Raises:
        EditError: The loss became NaN.
    """
    chosen = config or LoraConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or range(len(layout)), layout)
    projections = [matrix for layer in layers for matrix in layout.mlp_matrices[layer]]
    pairs = [(fact.prompt, fact.target_new) for fact in facts]
    with adapted(model, projections, rank=chosen.rank, alpha=chosen.alpha, seed=chosen.seed) as factors:
        names = [name for pair in factors.values() for name in pair]
        before = {name: weight.detach().float().cpu() for name, weight in tensors_of(model, names).items()}
        training = train(model, tokenizer, pairs, names, chosen, progress=around.progress)
    after = {name: before[name] + delta for name, delta in training.deltas.items()}
    scale = chosen.alpha / chosen.rank
    changes = {
        projection.name: Change(merged(projection, after[a_name], after[b_name], scale))
        for projection, (a_name, b_name) in zip(projections, factors.values(), strict=True)
    }
    notes = {"layers": layers, "rank": chosen.rank, "losses": [round(loss, 6) for loss in training.losses]}
    return Delta(changes, {}, notes).check_finite()


def merged(projection: Projection, a_RI: Tensor, b_OR: Tensor, scale: float) -> LowRank:
    """The change of the stored matrix that equals the adapter: W + scale · B A (Hu et al. 2022, eq. 3)."""
    left, right = projection.stored(b_OR * scale, a_RI)
    return LowRank(left.contiguous(), right.contiguous())


@contextmanager
def adapted(
    model: Any, projections: Sequence[Projection], *, rank: int, alpha: int, seed: int
) -> Iterator[Mapping[str, tuple[str, str]]]:
    """While open, the projections carry peft's adapters: from a matrix's name to the parameter names of A and B.

    B starts at zero, A as peft draws it, from a generator of its own. Afterwards the model has the very same
    modules and attributes as before.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    modules = {projection.name.removesuffix(".weight"): projection.module for projection in projections}
    settings = PeftConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(modules),
        fan_in_fan_out=any(projection.transposed for projection in projections),
    )
    attributes = dict(vars(model))
    with keeping_gradients_off(model):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # peft draws A on the CPU, whatever the device
                inject_adapter_in_model(settings, model, adapter_name=_ADAPTER)
            yield {f"{name}.weight": _factor_names(name) for name in modules}
        finally:
            for name, module in modules.items():
                model.set_submodule(name, module)
            _restore_attributes(model, attributes)


def _factor_names(module: str) -> tuple[str, str]:
    return f"{module}.lora_A.{_ADAPTER}.weight", f"{module}.lora_B.{_ADAPTER}.weight"


def _restore_attributes(model: Any, attributes: Mapping[str, Any]) -> None:
    for name in vars(model).keys() - attributes.keys():
        delattr(model, name)
    vars(model).update(attributes)
