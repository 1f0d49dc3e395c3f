"""Many facts at once, spread over the MLPs of several layers: all that MEMIT and AlphaEdit have in common.

Meng et al., MEMIT, ICLR 2023, algorithm 1. A method of this kind brings its closed form; target values, keys,
residuals and the order of the layers are here. Shape suffixes: O, I, M as in `solving`, N facts or, in keys and
residuals, the sites where they are written, D hidden size.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.applying import apply_delta, restoring
from perdure.editing.layers import check_layers, check_writable, default_layers
from perdure.editing.matrices import matrix_delta
from perdure.editing.method import Surroundings
from perdure.editing.reusing import find_or_reuse
from perdure.editing.subjects import companions, sample_contexts, sites_of, subject_states, target_rows
from perdure.editing.values import ValueConfig, Values, find_values
from perdure.models import layout_of
from perdure.progress import counting
from perdure.requests import Fact

ClosedForm = Callable[[int, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From a layer, what its outputs lack [O, N], its keys [I, N] and those of earlier edits [I, M] to ΔW's factors."""


class SpreadConfig(BaseModel):
    """Settings that every method of this kind has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[int, ...] | None = Field(None, min_length=1, description="Layers to change; by depth when not given")
    values: ValueConfig = Field(default_factory=ValueConfig, description="The search for target values")
    contexts: int = Field(5, ge=0, le=100, description="Sentences put before the prompt, besides none")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the draw of sentences")


def layers_to_write(model: Any, config: SpreadConfig) -> list[int]:
    """The layers of the settings, or those of the model's depth; checked.

    Raises:
        SettingError: A layer that the model does not have.
        ModelError: The last layer's block does not add its MLP's output as it is.
    """
    layout = layout_of(model)
    layers = check_layers(config.layers or default_layers(layout), layout)
    check_writable(model, layout, layers[-1])
    return layers


def spread(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    closed_form: ClosedForm,
    *,
    layers: Sequence[int],
    config: SpreadConfig,
    around: Surroundings,
) -> Delta:
    """The change that lets the last of the layers give each fact's target value, shared among all of them.

    Layer by layer, on the model as the earlier ones left it: keys, what the last layer's output still
    lacks, this layer's share of it, and the closed form's answer. Facts of one site (`sites_of`) share a target
    value and are one column of the solve: least squares would give each of them the mean of several. The model comes
    back as it was.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        facts: At least one.
        closed_form: What distinguishes the method.
        layers: Layers to change, sorted.
        config: The settings.
        around: What the edit stands on.
    """
    layout = layout_of(model)
    contexts = sample_contexts(config.contexts, config.seed)
    rows = target_rows(tokenizer, facts, contexts)
    sites = sites_of(rows)
    written = sorted(set(sites))
    look = partial(subject_states, model, layout, rows, contexts.weights(), last=layers[-1])
    before_ND = look(layers=layers[-1:]).block[sites]

    def search(places: list[int]) -> Values:
        found = counting(around.progress, "finding target values", len(places))
        chosen = [facts[place] for place in places]
        return find_values(
            model,
            tokenizer,
            chosen,
            layers[-1],
            before_ND[places],
            contexts=contexts,
            config=config.values,
            beside=companions(chosen, around.earlier),
            carried=max(around.carried, len(facts)),
            on_done=found,
        )

    shifts = find_or_reuse(facts, sites, before_ND, around.values, search)
    goal_ND = before_ND + shifts.shift.double()
    total = Delta()
    with restoring(model, [layout.mlp_out[layer].name for layer in layers]):
        for number, layer in enumerate(layers):
            around.progress("writing layers", number, len(layers))
            matrix, states = layout.mlp_out[layer], look(layers=[layer])
            residual_ON = (goal_ND - states.block)[written].T / (len(layers) - number)
            key_IN = states.keys[layer][:, written]
            factors = closed_form(layer, residual_ON, key_IN, around.previous_keys.get(matrix.name))
            step = matrix_delta(matrix, factors, key_IN)
            apply_delta(model, step)
            total = total + step
    around.progress("writing layers", len(layers), len(layers))
    notes = {
        "layers": list(layers),
        "contexts": list(contexts.prefixes),
        "clamp": config.values.radius(max(around.carried, len(facts))),
        "value_losses": list(shifts.losses),
        "value_steps": list(shifts.steps),
    }
    return Delta(total.changes, total.keys, notes, shifts.values).check_finite()
