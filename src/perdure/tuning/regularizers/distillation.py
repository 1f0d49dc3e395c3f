"""Learning without forgetting: what the model before expected at each answer token is still expected.

Li and Hoiem, "Learning without Forgetting", TPAMI 2017, with the answer's own tokens as the old task's questions.
"""

from typing import Any, Literal

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
    reference: Reference = Field("previous", description="The model before this task, or the one before all")
    top_k: int = Field(64, ge=1, description="Tokens of each distribution that are told apart; the rest is one outcome")


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
        settings = {"kind": "distillation", "top_k": self._config.top_k}
        with run.reference(self._config.reference) as model:
            self._targets = targets(
                model,
                run.rows,
                self._config.top_k,
                path=cache_file(run, self._config.reference, settings),
                tokens=run.batch_tokens,
                progress=run.around.progress,
            )

    def penalty(self, seen: Seen) -> Tensor:
        """Mean over the batch's learnt tokens of KL[reference ‖ model], nats."""
        expected = self._targets.of(seen)
        return divergence(expected, seen_through(seen.logits_NV, expected.ids_NK)).mean()

    def after_task(self, _run: Run) -> State:
        """Nothing."""
        return {}
