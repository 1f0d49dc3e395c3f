"""GeoEdit: what is done with each neuron follows from the angle between its updates for the old and the new answer.

Feng et al., "GeoEdit: Geometric Knowledge Editing for Large Language Models", arXiv 2502.19953.
Shape suffixes: N neurons, D numbers of one neuron, R directions kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from perdure.deltas import Change, Delta
from perdure.editing import geometry
from perdure.editing.encoding import train_encoder
from perdure.editing.importance import ImportanceWatch
from perdure.editing.layers import check_layers
from perdure.editing.method import Surroundings
from perdure.editing.neurons import Kind, Neurons, neurons_of
from perdure.editing.old_answers import old_answers
from perdure.editing.training import TrainingConfig, train
from perdure.errors import EditError
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.layout import tensors_of
from perdure.progress import counting
from perdure.registry import editors
from perdure.requests import Fact


class GeoEditConfig(TrainingConfig):
    """Settings of GeoEdit; passes, rate and batch are those of both trainings, which take equally many steps."""

    kind: Literal["geoedit"] = "geoedit"
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs are trained; all when not given"
    )
    neuron: Kind = Field("unit", description="A neuron: an MLP unit over all its matrices, or one row of one matrix")
    projection: Literal["linear", "trained"] = Field(
        "linear", description="Auto-encoder before the angles: principal directions, or a trained non-linear one"
    )
    directions: int = Field(16, ge=2, le=256, description="Dimensions that the auto-encoder keeps")
    width: float = Field(
        2.5, ge=0, description="Standard deviations of unrelated updates within which an angle counts as orthogonal"
    )
    forgetting: float = Field(0.3, ge=0, le=2, description="λ, how much of τ_old is taken away in conflict")
    least: float = Field(0.01, ge=0, lt=1, description="Updates below this share of the layer's norm are skipped")


@dataclass(frozen=True)
class _Learnt:
    """One training: the changes of the matrices, its losses, and the importance of each group's neurons [N]."""

    changes: dict[str, Tensor]
    losses: list[float]
    importance: list[Tensor]


@editors.register("geoedit", config=GeoEditConfig, paper="Feng et al., GeoEdit, 2025, arXiv 2502.19953")
@on_plain_view
def geoedit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: GeoEditConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Learns old and new answers apart and joins them neuron by neuron, by the angle between the two updates.

    Orthogonal: the neuron stays as it is, bit for bit. Acute: old and new are merged. Obtuse: the old is
    forgotten, then the new is learnt. An old answer is the fact's `target_true`, or what the model writes itself.
    The model is left as it was.

    Raises:
        EditError: The loss became NaN, or no fact has an old answer.
    """
    chosen = config or GeoEditConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or range(len(layout)), layout)
    groups = neurons_of(layout, layers, chosen.neuron)
    new = _learn(model, tokenizer, _new_pairs(facts), groups, chosen, around, stage="learning new answers")
    passes = {"steps": len(new.losses), "stop_loss": 0.0}
    old_pairs = _old_pairs(model, tokenizer, facts, around)
    again = chosen.model_copy(update=passes)
    old = _learn(model, tokenizer, old_pairs, groups, again, around, stage="learning old answers")
    changes: dict[str, Change] = {}
    judged = []
    for place, group in enumerate(groups):
        around.progress("joining old and new", place, len(groups))
        joined, note = _join(group, old, new, place, chosen)
        changes |= {name: Change(dense=tensor) for name, tensor in joined.items()}
        judged.append(note)
    around.progress("joining old and new", len(groups), len(groups))
    notes = {
        "layers": layers,
        "losses": [round(loss, 6) for loss in new.losses],
        "old_losses": [round(loss, 6) for loss in old.losses],
        "neurons": judged,
    }
    return Delta(changes, {}, notes).check_finite()


def _new_pairs(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(fact.prompt, fact.target_new) for fact in facts]


def _old_pairs(model: Any, tokenizer: Any, facts: Sequence[Fact], around: Surroundings) -> list[tuple[str, str]]:
    """The same prompts in the same order with their old answers; a fact with an empty one is left out."""
    unknown = sum(fact.target_true is None for fact in facts)
    done = counting(around.progress, "asking for old answers", unknown) if unknown else None
    answers = old_answers(model, tokenizer, facts, on_done=done)
    pairs = [(fact.prompt, answer) for fact, answer in zip(facts, answers, strict=True) if answer]
    if not pairs:
        raise EditError(
            f"none of the {len(facts)} facts has an old answer: the model ends the text after each prompt. "
            "Give target_true, or use --editor fine_tuning"
        )
    return pairs


def _learn(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    groups: Sequence[Neurons],
    config: TrainingConfig,
    around: Surroundings,
    *,
    stage: str,
) -> _Learnt:
    names = [matrix.name for group in groups for matrix in group.matrices]
    before = {name: parameter.data for name, parameter in tensors_of(model, names).items()}
    watch = ImportanceWatch(groups, before.__getitem__)
    found = train(model, tokenizer, pairs, names, config, progress=around.progress, stage=stage, observe=watch)
    return _Learnt(found.deltas, found.losses, [part.score for part in watch.importance])


def _join(
    group: Neurons, old: _Learnt, new: _Learnt, place: int, config: GeoEditConfig
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The joined changes of one group's matrices and what is to be said about its neurons; frees both updates."""
    names = [matrix.name for matrix in group.matrices]
    old_ND, new_ND = (group.rows({name: learnt.changes.pop(name) for name in names}) for learnt in (old, new))
    first_NR, second_NR, explained = _project(old_ND, new_ND, config)
    angle_N = geometry.angles(first_NR, second_NR)
    dimension = geometry.effective_dimension(first_NR, second_NR)
    margin = geometry.noise_margin(dimension, config.width)
    case_N = geometry.classify(angle_N, margin, geometry.negligible(old_ND, new_ND, config.least))
    share_N = geometry.old_share(old.importance[place], new.importance[place])
    joined_ND = geometry.fuse(old_ND, new_ND, case_N, share_N, config.forgetting)
    note = {
        "layer": group.layer,
        "matrix": None if group.out else group.matrices[0].name,
        "low": round(90 - margin, 2),
        "high": round(90 + margin, 2),
        "dimension": round(dimension, 2),
        "explained": round(explained, 4),
        "angles": geometry.histograms(angle_N, case_N),
        "cases": geometry.ranges(case_N),
    }
    return group.matrices_of(joined_ND), note


def _project(old_ND: Tensor, new_ND: Tensor, config: GeoEditConfig) -> tuple[Tensor, Tensor, float]:
    """Both updates in few dimensions, [N, R] each, and the share of their squared norm that these hold."""
    if config.projection == "trained":
        encode = train_encoder(torch.cat([old_ND, new_ND]), config.directions, seed=config.seed)
        return encode(old_ND), encode(new_ND), encode.explained
    basis_DR = geometry.leading_directions(old_ND, new_ND, config.directions)
    first_NR, second_NR = old_ND.double() @ basis_DR, new_ND.double() @ basis_DR
    whole = old_ND.double().square().sum() + new_ND.double().square().sum()
    return first_NR, second_NR, float((first_NR.square().sum() + second_NR.square().sum()) / whole)
