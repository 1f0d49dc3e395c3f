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
from perdure.registry import editors
from perdure.requests import Fact


class GeoEditConfig(TrainingConfig):
    """Settings of GeoEdit; passes, rate and batch are those of all its trainings.

    The published form: `forgetting=0.3, acute="merge", width=2.5, rescaled=False, learning_steps=0`.
    """

    kind: Literal["geoedit"] = "geoedit"
    stop_loss: float = Field(
        0.2,
        ge=0,
        description="The trainings on new and old answers end when the mean loss of the new ones is below this",
    )
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="Layers whose MLPs are trained; all when not given"
    )
    neuron: Kind = Field("unit", description="A neuron: an MLP unit over all its matrices, or one row of one matrix")
    projection: Literal["linear", "trained"] = Field(
        "linear", description="Auto-encoder before the angles: principal directions, or a trained non-linear one"
    )
    directions: int = Field(16, ge=2, le=256, description="Dimensions that the auto-encoder keeps")
    width: float = Field(
        0.25, ge=0, description="Standard deviations of unrelated updates within which an angle counts as orthogonal"
    )
    forgetting: float | None = Field(
        None,
        ge=0,
        le=2,
        description="λ, how much of τ_old is taken away in conflict; what both updates share in a layer when not given",
    )
    acute: Literal["mask", "merge"] = Field(
        "mask", description="Neurons that old and new pull the same way: left alone, or given a mean of both updates"
    )
    rescaled: bool = Field(
        True, description="Make the neurons that move take over what the masked ones would have done (as DARE does)"
    )
    least: float = Field(0.01, ge=0, lt=1, description="Updates below this share of the layer's norm are skipped")
    learning_steps: int = Field(
        20, ge=0, description="At most this many passes of learning in the neurons that move, once the old is forgotten"
    )
    learnt_loss: float = Field(0.5, ge=0, description="That learning ends when the mean loss is below this")


@dataclass(frozen=True)
class _Learnt:
    """One training: the changes of the matrices, its losses, and the importance of each group's neurons [N]."""

    changes: dict[str, Tensor]
    losses: list[float]
    importance: list[Tensor]


@dataclass(frozen=True)
class _Joined:
    """What the angles led to: changes of the matrices, each group's neurons that move [N], and what is told of them."""

    changes: dict[str, Tensor]
    moving: list[Tensor]
    told: list[dict[str, Any]]


@editors.register("geoedit", config=GeoEditConfig, paper="Feng et al., GeoEdit, 2025, arXiv 2502.19953")
@on_plain_view
def geoedit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: GeoEditConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Learns old and new answers apart, then lets each neuron forget, learn or stay, by the angle of its two updates.

    Orthogonal: the neuron stays as it is, bit for bit. Obtuse: the old is forgotten, then the new is learnt, by more
    training of these neurons alone. Acute: the neuron stays, or old and new are merged. An old answer is the fact's
    `target_true`, or what the model writes itself. The model is left as it was.

    Facts without an old answer have no pair of updates: they are learnt only in the last training.

    Raises:
        EditError: The loss became NaN, or no fact has an old answer.
    """
    chosen = config or GeoEditConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or range(len(layout)), layout)
    groups = neurons_of(layout, layers, chosen.neuron)
    old_pairs, new_pairs = _pairs(model, tokenizer, facts, around)
    new = _learn(model, tokenizer, new_pairs, groups, chosen, around, stage="learning new answers")
    again = chosen.model_copy(update={"steps": len(new.losses), "stop_loss": 0.0})
    old = _learn(model, tokenizer, old_pairs, groups, again, around, stage="learning old answers")
    joined = _join_all(groups, old, new, chosen, around)
    everything = [(fact.prompt, fact.target_new) for fact in facts]
    changes, losses = _learn_on(model, tokenizer, everything, groups, joined, chosen, around)
    notes = {
        "layers": layers,
        "losses": [round(loss, 6) for loss in new.losses],
        "old_losses": [round(loss, 6) for loss in old.losses],
        "last_losses": [round(loss, 6) for loss in losses],
        "neurons": joined.told,
    }
    return Delta({name: Change(dense=tensor) for name, tensor in changes.items()}, {}, notes).check_finite()


def _pairs(
    model: Any, tokenizer: Any, facts: Sequence[Fact], around: Surroundings
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The same prompts in the same order with old and with new answers; facts without an old one are in neither."""
    answers = old_answers(model, tokenizer, facts, around.progress)
    known = [(fact, answer) for fact, answer in zip(facts, answers, strict=True) if answer]
    if not known:
        raise EditError(
            f"none of the {len(facts)} facts has an old answer: the model ends the text after each prompt. "
            "Give target_true, or use --editor fine_tuning"
        )
    return [(fact.prompt, answer) for fact, answer in known], [(fact.prompt, fact.target_new) for fact, _ in known]


def _learn(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    groups: Sequence[Neurons],
    config: GeoEditConfig,
    around: Surroundings,
    *,
    stage: str,
) -> _Learnt:
    names = [matrix.name for group in groups for matrix in group.matrices]
    before = {name: parameter.data for name, parameter in tensors_of(model, names).items()}
    watch = ImportanceWatch(groups, before.__getitem__) if config.acute == "merge" else None
    found = train(model, tokenizer, pairs, names, config, progress=around.progress, stage=stage, observe=watch)
    return _Learnt(found.deltas, found.losses, [part.score for part in watch.importance] if watch else [])


def _join_all(
    groups: Sequence[Neurons], old: _Learnt, new: _Learnt, config: GeoEditConfig, around: Surroundings
) -> _Joined:
    found = _Joined({}, [], [])
    for place, group in enumerate(groups):
        around.progress("angles of neurons", place, len(groups))
        changes, moving_N, told = _join(group, old, new, place, config)
        found.changes.update(changes)
        found.moving.append(moving_N)
        found.told.append(told)
    around.progress("angles of neurons", len(groups), len(groups))
    return found


def _join(
    group: Neurons, old: _Learnt, new: _Learnt, place: int, config: GeoEditConfig
) -> tuple[dict[str, Tensor], Tensor, dict[str, Any]]:
    """The changes of one group's matrices, its neurons that move [N], and what is told of them; frees both updates."""
    names = [matrix.name for matrix in group.matrices]
    old_ND, new_ND = (group.rows({name: learnt.changes.pop(name) for name in names}) for learnt in (old, new))
    shared = geometry.shared_part(old_ND, new_ND) if config.forgetting is None else 0.0
    own_ND = new_ND - shared * old_ND if shared else new_ND
    first_NR, second_NR, explained = _project(old_ND, own_ND, config)
    angle_N = geometry.angles(first_NR, second_NR)
    dimension = geometry.effective_dimension(first_NR, second_NR)
    margin = geometry.noise_margin(dimension, config.width)
    case_N = geometry.classify(angle_N, margin, geometry.negligible(old_ND, own_ND, config.least))
    share_N = geometry.old_share(old.importance[place], new.importance[place]) if config.acute == "merge" else None
    joined_ND = geometry.fuse(
        old_ND, new_ND, case_N, share_N, shared if config.forgetting is None else config.forgetting
    )
    moving_N = (case_N == geometry.Case.OBTUSE) | ((case_N == geometry.Case.ACUTE) & (config.acute == "merge"))
    gain = geometry.takeover(own_ND, moving_N) if config.rescaled else 1.0
    told = {
        "layer": group.layer,
        "matrix": None if group.out else group.matrices[0].name,
        "low": round(90 - margin, 2),
        "high": round(90 + margin, 2),
        "dimension": round(dimension, 2),
        "explained": round(explained, 4),
        "shared": round(shared, 4),
        "gain": round(gain, 4),
        "merges": config.acute == "merge",
        "angles": geometry.histograms(angle_N, case_N),
        "cases": geometry.ranges(case_N),
    }
    return group.matrices_of(gain * joined_ND), moving_N, told


def _learn_on(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    groups: Sequence[Neurons],
    joined: _Joined,
    config: GeoEditConfig,
    around: Surroundings,
) -> tuple[dict[str, Tensor], list[float]]:
    """The changes after more training in the neurons that move, and its losses; all others stay, bit for bit."""
    if not config.learning_steps or not any(bool(moving_N.any()) for moving_N in joined.moving):
        return joined.changes, []
    owners = {matrix.name: place for place, group in enumerate(groups) for matrix in group.matrices}
    weights = tensors_of(model, list(owners))
    start = {name: weights[name].detach().float().cpu() + joined.changes.pop(name) for name in owners}

    def stay(name: str, now: Tensor, before: Tensor) -> Tensor:
        place = owners[name]
        return torch.where(groups[place].places(name, joined.moving[place]).to(now.device), now, before)

    passes = {"steps": config.learning_steps, "stop_loss": config.learnt_loss}
    found = train(
        model,
        tokenizer,
        pairs,
        list(owners),
        config.model_copy(update=passes),
        progress=around.progress,
        stage="learning once the old is forgotten",
        start=start,
        after_step=stay,
    )
    return found.deltas, found.losses


def _project(old_ND: Tensor, new_ND: Tensor, config: GeoEditConfig) -> tuple[Tensor, Tensor, float]:
    """Both updates in few dimensions, [N, R] each, and the share of their squared norm that these hold."""
    if config.projection == "trained":
        encode = train_encoder(torch.cat([old_ND, new_ND]), config.directions, seed=config.seed)
        return encode(old_ND), encode(new_ND), encode.explained
    basis_DR = geometry.leading_directions(old_ND, new_ND, config.directions)
    first_NR, second_NR = old_ND.double() @ basis_DR, new_ND.double() @ basis_DR
    whole = old_ND.double().square().sum() + new_ND.double().square().sum()
    return first_NR, second_NR, float((first_NR.square().sum() + second_NR.square().sum()) / whole)
