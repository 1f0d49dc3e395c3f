"""Plain fine-tuning on the facts: the baseline that everybody has."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from perdure.deltas import Change, Delta
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.editing.training import TrainingConfig, train
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.registry import editors
from perdure.requests import Fact


class FineTuningConfig(TrainingConfig):
    """Settings of plain fine-tuning."""

    kind: Literal["fine_tuning"] = "fine_tuning"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs are trained; all when not given"
    )


@editors.register("fine_tuning", config=FineTuningConfig, paper="baseline; Zhu et al., arXiv 2012.00363")
@on_plain_view
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
    pairs = [(fact.prompt, fact.target_new) for fact in facts]
    training = train(model, tokenizer, pairs, names, chosen, progress=around.progress)
    changes = {name: Change(dense=delta) for name, delta in training.deltas.items()}
    notes = {"layers": layers, "losses": [round(loss, 6) for loss in training.losses]}
    return Delta(changes, {}, notes).check_finite()
