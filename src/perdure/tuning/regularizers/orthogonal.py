"""O-LoRA: the new adapter reads from directions that no earlier one reads from.

Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning", Findings of EMNLP 2023.
Shape suffixes: R rank, P rank of all earlier ones, I inputs of the projection.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.errors import SettingError
from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.regularizer import RegularizerConfig, Run, State
from perdure.tuning.trained import LoraTrained


class OrthogonalConfig(RegularizerConfig):
    """Settings of O-LoRA."""

    kind: Literal["orthogonal"] = "orthogonal"
    weight: float = Field(0.5, ge=0, description="λ₁ of the paper")


@regularizers.register("orthogonal", config=OrthogonalConfig, paper="Wang et al., 2023, arXiv 2310.14152")
class Orthogonal:
    """Holds the new adapters' input directions orthogonal to those of all earlier tasks (O-LoRA)."""

    def __init__(self, config: OrthogonalConfig) -> None:
        self._config = config

    def taps(self, _model: object) -> Taps:
        """Nothing."""
        return {}

    def prepare(self, run: Run) -> None:
        """Take the input directions of all earlier low-rank changes.

        Raises:
            SettingError: Whole tensors are trained.
        """
        if not isinstance(run.trained, LoraTrained):
            raise SettingError("the regularizer orthogonal holds adapters apart; it needs method=lora")
        self._pairs = run.trained.pairs
        self._earlier = {
            name: directions.to(pair.a_RI.device)
            for name, pair in self._pairs.items()
            if (directions := _directions(run, name, transposed=pair.transposed)) is not None
        }

    def penalty(self, _seen: Seen) -> Tensor:
        """Σ ‖A_earlier A_newᵀ‖²_F over the projections and the earlier tasks; zero for the first task."""
        parts = [overlap(earlier, self._pairs[name].a_RI) for name, earlier in self._earlier.items()]
        anything = next(iter(self._pairs.values())).a_RI
        return torch.stack(parts).sum() if parts else anything.new_zeros(())

    def after_task(self, _run: Run) -> State:
        """Nothing: a version keeps its factors."""
        return {}


def overlap(earlier_PI: Tensor, new_RI: Tensor) -> Tensor:
    """‖A_earlier A_newᵀ‖²_F (equations 6 and 7): zero where no direction is shared."""
    return (earlier_PI.to(new_RI) @ new_RI.T).square().sum()


def _directions(run: Run, name: str, *, transposed: bool) -> Tensor | None:
    """The input directions [P, I] of the earlier low-rank changes of one tensor."""
    found = []
    for delta in run.around.earlier:
        change = delta.changes.get(name)
        if change is not None and change.low_rank is not None:
            found.append(change.low_rank.left.T if transposed else change.low_rank.right)
    return torch.cat(found) if found else None
