"""Elastic weight consolidation: weights that mattered to earlier tasks are held, others may move.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017; summed over tasks as in
Schwarz et al., "Progress & Compress", ICML 2018 (online EWC).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.models.adapters import bare
from perdure.models.layout import tensors_of
from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.reading import evenly
from perdure.tuning.regularizer import RegularizerConfig, Run, State


class EWCConfig(RegularizerConfig):
    """Settings of elastic weight consolidation."""

    kind: Literal["ewc"] = "ewc"
    weight: float = Field(100.0, ge=0, description="λ of the paper; 1 counts a learnt token of before like a new one")
    rows: int = Field(64, ge=1, description="Examples of a finished task on which its Fisher information is taken")
    decay: float = Field(1.0, ge=0, le=1, description="What earlier Fisher information is multiplied by at each task")


@regularizers.register("ewc", config=EWCConfig, paper="Kirkpatrick et al., PNAS 2017, arXiv 1612.00796")
class EWC:
    """Holds weights by how much earlier tasks depend on them: ½ Σ F (W − W_previous)² (equation 3)."""

    def __init__(self, config: EWCConfig) -> None:
        self._config = config

    def taps(self, _model: object) -> Taps:
        """Nothing."""
        return {}

    def prepare(self, run: Run) -> None:
        """Take the Fisher information of the earlier tasks; none before the first."""
        self._trained = run.trained
        device = run.trained.parameters()[0].device
        self._fisher = {name: fisher.to(device) for name, fisher in run.around.states.get("ewc", {}).items()}

    def penalty(self, _seen: Seen) -> Tensor:
        """½ Σ F ΔW² over the trained tensors; zero for the first task."""
        parts = [
            (self._fisher[name] * self._trained.change(name).square()).sum()
            for name in self._trained.names
            if name in self._fisher
        ]
        return torch.stack(parts).sum() / 2 if parts else self._trained.parameters()[0].new_zeros(())

    def after_task(self, run: Run) -> State:
        """The Fisher information of all tasks so far, diagonal, float32, as large as the trained tensors."""
        state = {name: fisher.cpu() * self._config.decay for name, fisher in self._fisher.items()}
        for name, fisher in fisher_of(run, self._config.rows).items():
            state[name] = state[name] + fisher if name in state else fisher
        return state


def fisher_of(run: Run, count: int) -> dict[str, Tensor]:
    """The diagonal Fisher information of the trained tensors for the mean loss a token, float32, on the CPU.

    F = Σ over examples of (∂ log p(drawn | prompt) / ∂W)², over the number of learnt tokens, the tokens drawn from the
    model itself: with those of the data it vanishes where they are fitted. With adapters W is the sum W + BA, so that
    the figures mean the same for every later adapter.

    Args:
        run: The task; the model carries what was learnt.
        count: At most this many rows, evenly spaced.
    """
    rows = evenly(run.learnt, count)
    generator, learnt = torch.Generator().manual_seed(0), 0
    weights = tensors_of(run.base, list(run.trained.names))
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    model = bare(run.model)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    model.eval()
    try:
        for place, number in enumerate(rows):
            run.around.progress("Fisher information", place, len(rows))
            with torch.enable_grad():
                losses_N = run.forward(run.model, run.batch([number])).sampled_losses(generator)
                gradients = torch.autograd.grad(losses_N.sum(), list(weights.values()))
            learnt += len(losses_N)
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += gradient.float().square()
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    run.around.progress("Fisher information", len(rows), len(rows))
    return {name: fisher.cpu() / learnt for name, fisher in total.items()}
