"""L2-SP: the weights held near where they started.

Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.deltas import Delta
from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.regularizer import Reference, RegularizerConfig, Run, State
from perdure.tuning.trained import Trained


class L2SPConfig(RegularizerConfig):
    """Settings of L2-SP."""

    kind: Literal["l2sp"] = "l2sp"
    weight: float = Field(0.01, ge=0, description="α of the paper")
    reference: Reference = Field("previous", description="Near the model before this task, or the one before all")


@regularizers.register("l2sp", config=L2SPConfig, paper="Li et al., ICML 2018, arXiv 1802.01483")
class L2SP:
    """Holds the trained weights near the reference's: ½ Σ ‖W − W₀‖²_F (equation 2, without the new head's part)."""

    def __init__(self, config: L2SPConfig) -> None:
        self._config = config

    def taps(self, _model: object) -> Taps:
        """Nothing."""
        return {}

    def prepare(self, run: Run) -> None:
        """Take what earlier tasks changed, where the original is the reference."""
        self._trained = run.trained
        earlier = run.around.accumulated if self._config.reference == "original" else Delta()
        device = run.trained.parameters()[0].device
        self._offsets = {
            name: change.value().float().to(device)
            for name, change in earlier.changes.items()
            if name in set(run.trained.names)
        }

    def penalty(self, _seen: Seen) -> Tensor:
        """½ Σ ‖ΔW‖²_F over the trained tensors."""
        return squared_distance(self._trained, self._offsets) / 2

    def after_task(self, _run: Run) -> State:
        """Nothing."""
        return {}


def squared_distance(trained: Trained, offsets: dict[str, Tensor]) -> Tensor:
    """Σ ‖O + ΔW‖²_F, where O is what a tensor differed before; constant parts included."""
    parts = []
    for name in trained.names:
        if name in offsets:
            parts.append((offsets[name] + trained.change(name)).square().sum())
        else:
            parts.append(trained.squared(name))
    return torch.stack(parts).sum()
