"""AlphaEdit: many facts at once, written only along directions that text uses little.

Fang et al., "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", ICLR 2025. The published
threshold and ridge are absolute numbers, tuned for three models; here both are calibrated on C of the model at hand.
Shape suffixes: O, I, N, M as in `solving`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.method import Surroundings
from perdure.editing.solving import NullSpace, alphaedit_update, null_space, unlike
from perdure.editing.spreading import SpreadConfig, layers_to_write, spread
from perdure.errors import EditError
from perdure.models.adapters import on_plain_view
from perdure.registry import editors
from perdure.requests import Fact


class AlphaEditConfig(SpreadConfig):
    """Settings of AlphaEdit."""

    kind: Literal["alphaedit"] = "alphaedit"
    null_share: float | None = Field(
        None, gt=0, le=1, description="Share of tr(C) left in the null space; the least disturbing when not given"
    )
    threshold: float | None = Field(
        None, gt=0, description="Eigenvalues of C below this are the null space, as published; instead of null_share"
    )
    ridge: float = Field(0.25, gt=0, description="L2, in units of the text's mean ‖P k‖²")
    l2: float | None = Field(None, gt=0, description="L2 itself, as published; instead of ridge")

    @model_validator(mode="after")
    def _check_one_limit(self) -> Self:
        if self.null_share is not None and self.threshold is not None:
            raise ValueError("null_share and threshold both limit the null space; give one of them")
        return self


@editors.register("alphaedit", config=AlphaEditConfig, paper="Fang et al., AlphaEdit, ICLR 2025")
@on_plain_view
def alphaedit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: AlphaEditConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Many facts in one batch, written into several MLPs only along directions that text uses little.

    The model is left as it was. Cost: that of MEMIT, and one eigendecomposition of C per layer, kept in the cache.
    """
    chosen = config or AlphaEditConfig()
    if not facts:
        return Delta()
    layers = layers_to_write(model, chosen)
    told = partial(around.progress, "decomposing second moments")
    bases = around.moments_for(model, tokenizer).eigenbases(layers, told)
    spaces = {
        layer: null_space(basis, share=chosen.null_share, threshold=chosen.threshold) for layer, basis in bases.items()
    }
    ridges = {layer: _ridge(layer, space, chosen) for layer, space in spaces.items()}

    def closed_form(
        layer: int, residual_ON: Tensor, key_IN: Tensor, previous_IM: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        basis_IR = spaces[layer].basis
        others_IM = unlike(previous_IM, key_IN, partial(torch.matmul, basis_IR.T))
        return alphaedit_update(residual_ON, key_IN, others_IM, basis_IR, ridges[layer])

    delta = spread(model, tokenizer, facts, closed_form, layers=layers, config=chosen, around=around)
    return replace(delta, notes={**delta.notes, "null_spaces": _describe(spaces, ridges)})


def _ridge(layer: int, space: NullSpace, config: AlphaEditConfig) -> float:
    """L2 of a layer.

    Raises:
        EditError: It is relative to a mass that is zero.
    """
    if config.l2 is not None:
        return config.l2
    if not space.mass > 0:
        raise EditError(
            f"the text never reaches the {space.basis.shape[1]} directions of layer {layer}'s null space, so no ridge "
            "can be taken from it; give more text (10 tokens per MLP unit), a larger null_share, or l2"
        )
    return config.ridge * space.mass


def _describe(spaces: Mapping[int, NullSpace], ridges: Mapping[int, float]) -> list[dict[str, float]]:
    """What was used, layer by layer, for the record."""
    return [
        {
            "layer": layer,
            "dimension": space.basis.shape[1],
            "of": space.basis.shape[0],
            "threshold": space.threshold,
            "mass": space.mass,
            "share": space.share,
            "l2": ridges[layer],
        }
        for layer, space in spaces.items()
    ]
