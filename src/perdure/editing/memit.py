"""MEMIT: many facts at once, spread over several layers.

Meng et al., "Mass-Editing Memory in a Transformer", ICLR 2023; with the keys of earlier batches in the
bracket, without which the method does not survive a sequence. Shape suffixes: O, I, N as in `solving`.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.deltas import Delta
from perdure.editing.applying import apply_delta, restoring
from perdure.editing.layers import check_layers, check_writable, default_layers
from perdure.editing.matrices import matrix_delta
from perdure.editing.method import Surroundings
from perdure.editing.solving import memit_update, protect
from perdure.editing.subjects import sample_contexts, subject_states, target_rows
from perdure.editing.values import ValueConfig, find_values
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.registry import editors
from perdure.requests import Fact


class MemitConfig(BaseModel):
    """Settings of MEMIT."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["memit"] = "memit"
    layers: tuple[int, ...] | None = Field(None, min_length=1, description="Layers to change; by depth when not given")
    values: ValueConfig = Field(default_factory=ValueConfig, description="The search for target values")
    moment_weight: float | None = Field(
        None, gt=0, description="λ, the weight of the second moment in tokens; d_ff / 4 when not given"
    )
    contexts: int = Field(5, ge=0, le=100, description="Sentences put before the prompt, besides none")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the draw of sentences")


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

    The model is left as it was. Cost: up to 25 forward and backward passes over a few suffix tokens per
    fact and context above the last layer, and one forward pass per layer up to it.
    """
    chosen = config or MemitConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layers = check_layers(chosen.layers or default_layers(layout), layout)
    check_writable(model, layout, layers[-1])
    moments = around.moments_for(model, tokenizer).of(layers)
    contexts = sample_contexts(chosen.contexts, chosen.seed)
    rows, weights = target_rows(tokenizer, facts, contexts), contexts.weights()
    before = subject_states(model, layout, rows, weights, layers=layers[-1:], last=layers[-1])
    values = find_values(
        model,
        tokenizer,
        facts,
        layers[-1],
        before.block,
        contexts=contexts,
        config=chosen.values,
        on_done=_counter(around, "finding target values", len(facts)),
    )
    goal_ND = before.block + values.shift.double()
    weight = chosen.moment_weight or layout.d_ff / 4
    total = Delta()
    with restoring(model, [layout.mlp_out[layer].name for layer in layers]):
        for number, layer in enumerate(layers):
            around.progress("writing layers", number, len(layers))
            states = subject_states(model, layout, rows, weights, layers=[layer], last=layers[-1])
            residual_ON = (goal_ND - states.block).T / (len(layers) - number)
            name = layout.mlp_out[layer].name
            solve = protect(moments[layer], weight, around.previous_keys.get(name))
            factors = memit_update(residual_ON, states.keys[layer], solve)
            step = matrix_delta(layout.mlp_out[layer], factors, states.keys[layer])
            apply_delta(model, step)
            total = total + step
    around.progress("writing layers", len(layers), len(layers))
    notes = {
        "layers": layers,
        "moment_weight": weight,
        "contexts": list(contexts.prefixes),
        "value_losses": [round(loss, 6) for loss in values.losses],
        "value_steps": list(values.steps),
    }
    return Delta(total.changes, total.keys, notes).check_finite()


def _counter(around: Surroundings, stage: str, total: int) -> Any:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        around.progress(stage, done, total)

    around.progress(stage, 0, total)
    return count
