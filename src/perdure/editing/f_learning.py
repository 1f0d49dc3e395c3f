"""F-Learning: the old answers are forgotten before the new ones are learnt.

Ni et al., "Forgetting before Learning: Utilizing Parametric Arithmetic for Knowledge Updating in Large Language
Models", ACL 2024, arXiv 2311.08011.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from perdure.deltas import Change, Delta
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.editing.old_answers import old_answers
from perdure.editing.training import TrainingConfig, train
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.layout import tensors_of
from perdure.registry import editors
from perdure.requests import Fact


class FLearningConfig(TrainingConfig):
    """Settings of F-Learning; passes, rate and batch are those of both trainings."""

    kind: Literal["f_learning"] = "f_learning"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs are trained; all when not given"
    )
    forgetting: float = Field(0.3, ge=0, le=1, description="λ, the share of the old knowledge that is subtracted")
    old_steps: int = Field(5, ge=1, description="Passes over the old answers; all of them are done")


def forget(weight: Tensor, old: Tensor, share: float) -> Tensor:
    """The weights without a share of what fine-tuning on the old answers adds: θ′ = θ − λ τ_old.

    Ni et al. 2024, with τ_old = FT(θ, D_old) − θ. Any shape; computed in float64, given back in `weight`'s dtype.
    """
    return (weight.double() - share * old.double()).to(weight.dtype)


@editors.register("f_learning", config=FLearningConfig, paper="Ni et al., F-Learning, ACL 2024, arXiv 2311.08011")
@on_plain_view
def f_learning(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: FLearningConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Forgets the old answers by subtracting what they teach, then fine-tunes on the new ones: a dense delta.

    An old answer is the fact's `target_true`, or what the model writes itself; a fact whose old answer is empty or
    equals the new one has nothing to forget. The model is left as it was.

    Raises:
        EditError: The loss became NaN.
    """
    chosen = config or FLearningConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or range(len(layout)), layout)
    names = [matrix.name for layer in layers for matrix in layout.mlp_matrices[layer]]
    start, old_losses = _forgotten(model, tokenizer, facts, names, chosen, around)
    new = [(fact.prompt, fact.target_new) for fact in facts]
    learnt = train(model, tokenizer, new, names, chosen, progress=around.progress, stage="learning", start=start)
    notes = {
        "layers": layers,
        "old_losses": [round(loss, 6) for loss in old_losses],
        "losses": [round(loss, 6) for loss in learnt.losses],
    }
    return Delta({name: Change(dense=delta) for name, delta in learnt.deltas.items()}, {}, notes).check_finite()


def _forgotten(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    names: Sequence[str],
    config: FLearningConfig,
    around: Surroundings,
) -> tuple[Mapping[str, Tensor], list[float]]:
    """The weights θ′ by name, float32, and the losses of the training on the old answers."""
    answers = old_answers(model, tokenizer, facts, around.progress)
    old = [(fact.prompt, answer) for fact, answer in zip(facts, answers, strict=True)]
    old = [pair for pair, fact in zip(old, facts, strict=True) if pair[1] and pair[1] != fact.target_new]
    if not old or not config.forgetting:
        return {}, []
    settings = config.model_copy(update={"steps": config.old_steps, "stop_loss": 0.0})
    learnt = train(model, tokenizer, old, names, settings, progress=around.progress, stage="forgetting")
    weights = tensors_of(model, list(names))
    start = {  # on the CPU, where they wait without taking the device's memory
        name: forget(weights[name].detach().float().cpu(), delta, config.forgetting)
        for name, delta in learnt.deltas.items()
    }
    return start, learnt.losses
