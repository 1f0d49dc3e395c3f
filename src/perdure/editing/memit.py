"""MEMIT: many facts at once, spread over several layers.

Meng et al., "Mass-Editing Memory in a Transformer", ICLR 2023; with the keys of earlier batches in the
bracket, without which the method does not survive a sequence. Shape suffixes: O, I, N, M as in `solving`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.method import Surroundings
from perdure.editing.solving import memit_update, protect, unlike
from perdure.editing.spreading import SpreadConfig, layers_to_write, spread
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.registry import editors
from perdure.requests import Fact


class MemitConfig(SpreadConfig):
    """Settings of MEMIT."""

    kind: Literal["memit"] = "memit"
    moment_weight: float | None = Field(
        None, gt=0, description="λ, the weight of the second moment in tokens; d_ff / 4 when not given"
    )


@editors.register("memit", config=MemitConfig, paper="Meng et al., MEMIT, ICLR 2023")
@on_plain_view
def memit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: MemitConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Many facts in one batch, written into the MLPs of several layers by least squares.

    The model is left as it was. Cost: up to 20 forward and backward passes over a few suffix tokens per
    fact and context above the last layer, and one forward pass per layer up to it.
    """
    chosen = config or MemitConfig()
    if not facts:
        return Delta()
    layers = layers_to_write(model, chosen)
    moments = around.moments_for(model, tokenizer).of(layers)
    weight = chosen.moment_weight or layout_of(model).d_ff / 4

    def closed_form(
        layer: int, residual_ON: Tensor, key_IN: Tensor, previous_IM: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        others_IM = unlike(previous_IM, key_IN, moments[layer].whiten)
        return memit_update(residual_ON, key_IN, protect(moments[layer], weight, others_IM))

    delta = spread(model, tokenizer, facts, closed_form, layers=layers, config=chosen, around=around)
    return replace(delta, notes={**delta.notes, "moment_weight": weight})
