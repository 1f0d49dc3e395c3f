"""Learning without forgetting: what the model before expected at each answer token is still expected.

Li and Hoiem, "Learning without Forgetting", TPAMI 2017, with the answer's own tokens as the old task's questions.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.regularizer import Reference, RegularizerConfig, Run, State, cache_file
from perdure.tuning.top_k import divergence, seen_through, targets


class DistillationConfig(RegularizerConfig):
    """Settings of distillation."""

    kind: Literal["distillation"] = "distillation"
    weight: float = Field(1.0, ge=0, description="λ of the paper")
    on: Literal["all", "task", "anchors"] = Field("all", description="Which rows: the task's, the anchors, or both")
    reference: Reference = Field("previous", description="The model before this task, or the one before all")
    top_k: int = Field(64, ge=1, description="Tokens of each distribution that are told apart; the rest is one outcome")

    @property
    def holds_anchors(self) -> bool:
        """Unless it holds the task's rows alone."""
        return self.on != "task"


@regularizers.register("distillation", config=DistillationConfig, paper="Li and Hoiem, TPAMI 2017, arXiv 1606.09282")
class Distillation:
    """Holds the next-token distributions near the reference's: mean over answer tokens of KL[reference ‖ model]."""

    def __init__(self, config: DistillationConfig) -> None:
        self._config = config

    def taps(self, _model: Any) -> Taps:
        """Nothing but the logits."""
        return {}

    def prepare(self, run: Run) -> None:
        """Read what the reference expects, once."""
        on = self._config.on
        numbers = [number for number, anchor in enumerate(run.anchors) if on == "all" or anchor == (on == "anchors")]
        self._places = {number: place for place, number in enumerate(numbers)}
        settings = {"kind": "distillation", "top_k": self._config.top_k, "rows": on, **run.asked}
        path = cache_file(run, self._config.reference, settings)
        with run.reference(self._config.reference) as model:
            self._targets = targets(run, model, self._config.top_k, numbers=numbers, path=path)

    def penalty(self, seen: Seen) -> Tensor:
        """Mean over the tokens of the batch's held rows of KL[reference ‖ model], nats; 0 where it has none."""
        held = [number in self._places for number in seen.batch.numbers]
        if not any(held):
            return seen.told.new_zeros(())
        expected = self._targets.of_rows([self._places[n] for n in seen.batch.numbers if n in self._places])
        expected = expected.to(seen.told.device)
        logits_NV = seen.told[torch.tensor(held, device=seen.told_rows.device)[seen.told_rows]]
        return divergence(expected, seen_through(logits_NV, expected.ids_NK)).mean()

    def after_task(self, _run: Run) -> State:
        """Nothing."""
        return {}
