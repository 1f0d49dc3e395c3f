"""Fine-tuning within a norm: no weight may move further than a given distance (FT-C, FT+L).

Zhu et al., "Modifying Memories in Transformer Models", arXiv 2012.00363; on one MLP matrix, as the baseline FT+L
of Meng et al. 2022 (ROME). Shape suffixes: O rows and I columns of the matrix as it is stored.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from perdure.deltas import Change, Delta
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.editing.training import TrainingConfig, train
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.layout import tensors_of
from perdure.registry import editors
from perdure.requests import Fact

_SHARE = 0.05  # of the matrix's root mean square: a bound that means the same in every model


class ConstrainedConfig(TrainingConfig):
    """Settings of norm-constrained fine-tuning."""

    kind: Literal["fine_tuning_constrained"] = "fine_tuning_constrained"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose down-projections are trained; the first when not given"
    )
    learning_rate: float = Field(5e-4, gt=0, description="Adam's learning rate")
    radius: float | None = Field(
        None, gt=0, description="The furthest that any weight may move; 5 % of the matrix's RMS when not given"
    )


def clamp_change(weight_OI: Tensor, before_OI: Tensor, radius: float) -> Tensor:
    """The nearest weights [O, I] to the given ones with ‖W − W_before‖∞ ≤ radius, element by element.

    The constraint of Zhu et al. 2020: least loss on the modified facts subject to ‖θ − θ₀‖∞ ≤ δ. Any shape and
    dtype; `radius` is in the unit of the weights.
    """
    return weight_OI.clamp(before_OI - radius, before_OI + radius)


@editors.register(
    "fine_tuning_constrained", config=ConstrainedConfig, paper="Zhu et al., arXiv 2012.00363; FT+L of Meng et al. 2022"
)
@on_plain_view
def fine_tuning_constrained(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: ConstrainedConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Adam on the answers over the first down-projection, no weight further than `radius` from where it was.

    The loss is that of plain fine-tuning. The model is left as it was.

    Raises:
        EditError: The loss became NaN.
    """
    chosen = config or ConstrainedConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or (0,), layout)
    names = [layout.mlp_out[layer].name for layer in layers]
    radii = {name: chosen.radius or _SHARE * _rms(weight) for name, weight in tensors_of(model, names).items()}
    training = train(
        model,
        tokenizer,
        [(fact.prompt, fact.target_new) for fact in facts],
        names,
        chosen,
        progress=around.progress,
        after_step=lambda name, now, before: clamp_change(now, before, radii[name]),
    )
    notes = {"layers": layers, "radii": list(radii.values()), "losses": [round(loss, 6) for loss in training.losses]}
    return Delta({name: Change(dense=delta) for name, delta in training.deltas.items()}, {}, notes).check_finite()


def _rms(weight: Tensor) -> float:
    return float(weight.detach().double().pow(2).mean().sqrt())
