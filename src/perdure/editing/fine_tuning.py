"""Plain fine-tuning on the facts: the baseline that everybody has."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.deltas import Change, Delta
from perdure.editing.applying import restoring
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.errors import EditError
from perdure.models import layout_of
from perdure.models.head import logits_at
from perdure.models.layout import tensors_of
from perdure.models.tokens import encode_pair, pad
from perdure.registry import editors
from perdure.requests import Fact


class FineTuningConfig(BaseModel):
    """Settings of plain fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fine_tuning"] = "fine_tuning"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs are trained; all when not given"
    )
    steps: int = Field(30, ge=1, description="At most this many passes over the facts")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's learning rate")
    stop_loss: float = Field(0.05, ge=0, description="Training ends when the mean loss is below this")
    batch_size: int = Field(16, ge=1, description="Facts per step")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the order of facts")


@editors.register("fine_tuning", config=FineTuningConfig, paper="baseline; Zhu et al., arXiv 2012.00363")
def fine_tuning(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: FineTuningConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Adam on the answers of the facts, over all MLP matrices: a dense delta.

    The loss is the mean NLL of the answer's tokens after the prompt. The model is left as it was.

    Raises:
        EditError: The loss became NaN.
    """
    chosen = config or FineTuningConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or range(len(layout)), layout)
    names = [matrix.name for layer in layers for matrix in layout.mlp_matrices[layer]]
    encoded = [encode_pair(tokenizer, fact.prompt, fact.target_new) for fact in facts]
    with restoring(model, names):
        parameters = tensors_of(model, names)
        before = {name: parameter.data for name, parameter in parameters.items()}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        masters = {name: weight.float().clone() for name, weight in before.items()}
        try:
            losses = _train(model, encoded, parameters, masters, chosen, around)
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None
        changes = {
            name: Change(dense=(masters.pop(name).double() - weight.double()).float().cpu())
            for name, weight in before.items()
        }
    notes = {"layers": layers, "losses": [round(loss, 6) for loss in losses]}
    return Delta(changes, {}, notes).check_finite()


def _train(
    model: Any,
    encoded: list[tuple[list[int], int]],
    parameters: dict[str, Any],
    masters: dict[str, Tensor],
    config: FineTuningConfig,
    around: Surroundings,
) -> list[float]:
    """The mean loss of each pass; the float32 masters are trained in place, the model runs on them rounded.

    In bfloat16 most of Adam's steps are smaller than half a unit in the last place and would vanish.
    """
    adam = torch.optim.Adam(masters.values(), lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    for step in range(config.steps):
        around.progress("fine-tuning", step, config.steps)
        order = torch.randperm(len(encoded), generator=generator).tolist()
        total = 0.0
        for start in range(0, len(order), config.batch_size):
            batch = [encoded[index] for index in order[start : start + config.batch_size]]
            with torch.enable_grad():
                loss = _loss(model, batch)
                if not torch.isfinite(loss):
                    raise EditError(f"the loss became {float(loss)} in pass {step}; lower the learning rate")
                loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in parameters.items():
                masters[name].grad, parameter.grad = parameter.grad.float(), None
            adam.step()
            for name, parameter in parameters.items():
                masters[name].grad = None
                parameter.data = masters[name].to(parameter.dtype)
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(encoded))
        if losses[-1] < config.stop_loss:
            break
    around.progress("fine-tuning", config.steps, config.steps)
    return losses


def _loss(model: Any, batch: list[tuple[list[int], int]]) -> Tensor:
    """The mean over facts of the mean NLL of the answer's tokens."""
    padded = pad([ids for ids, _ in batch], device=model.device)
    places = [(row, at) for row, (ids, start) in enumerate(batch) for at in range(max(start, 1), len(ids))]
    rows = torch.tensor([row for row, _ in places], device=model.device)
    columns = torch.tensor([at for _, at in places], device=model.device)
    weights = torch.tensor([1 / (len(batch[row][0]) - max(batch[row][1], 1)) for row, _ in places])
    logits_NV = logits_at(model, rows, columns - 1, use_cache=False, **padded.inputs())
    nll_N = torch.nn.functional.cross_entropy(logits_NV, padded.ids[rows, columns], reduction="none")
    return (nll_N * weights.to(nll_N)).sum() / len(batch)
