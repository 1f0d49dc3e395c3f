"""ROME: one fact at a time, one rank-one change of one matrix.

Meng et al., "Locating and Editing Factual Associations in GPT", NeurIPS 2022. One key is used throughout;
the published code mixes the averaged key with the bare prompt's, the defect behind its collapses in
sequence. Shape suffixes: O, I, N as in `solving`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.applying import apply_delta, restoring
from perdure.editing.layers import check_layers, check_writable, default_layers
from perdure.editing.matrices import matrix_delta
from perdure.editing.method import Surroundings
from perdure.editing.reusing import find_or_reuse
from perdure.editing.solving import protect, rome_update
from perdure.editing.statistics import SecondMoment
from perdure.editing.subjects import Contexts, companions, sample_contexts, sites_of, subject_states, target_rows
from perdure.editing.values import ValueConfig, Values, find_values
from perdure.models import Layout, capture, layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.tokens import pad
from perdure.registry import editors
from perdure.requests import Fact


class RomeValueConfig(ValueConfig):
    """Settings of the search for target values: v0 is the MLP's output, smaller than the block's."""

    clamp: float | None = Field(4.0, gt=0, description="‖δ‖ is at most this times ‖v0‖")
    step: float = Field(1.0, gt=0, description="Adam's learning rate, as a step's length over ‖v0‖")


class RomeConfig(BaseModel):
    """Settings of ROME."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["rome"] = "rome"
    layer: int | None = Field(None, ge=0, description="Layer to change; by depth when not given")
    values: RomeValueConfig = Field(default_factory=RomeValueConfig, description="The search for target values")
    contexts: int = Field(5, ge=0, le=100, description="Sentences put before the prompt, besides none")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the draw of sentences")


@editors.register("rome", config=RomeConfig, paper="Meng et al., ROME, NeurIPS 2022")
@on_plain_view
def rome(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    config: RomeConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
) -> Delta:
    """Facts one after another, each a rank-one change of a single MLP matrix.

    Facts of one site (`sites_of`) are written at once: a later one would take the place of the earlier ones. The
    model is left as it was. Keys of earlier edits join the second moment, so a fact is written where
    it disturbs neither the text nor the earlier facts.
    """
    chosen = config or RomeConfig()
    if not facts:
        return Delta()
    layout = layout_of(model)
    layer = check_layers([default_layers(layout)[0] if chosen.layer is None else chosen.layer], layout)[0]
    check_writable(model, layout, layer)
    moment = around.moments_for(model, tokenizer).of([layer])[layer]
    contexts = sample_contexts(chosen.contexts, chosen.seed)
    sites = sites_of(target_rows(tokenizer, facts, contexts))
    name, total, losses = layout.mlp_out[layer].name, Delta(), dict[int, float | None]()
    with restoring(model, [name]):
        for site in sorted(set(sites)):
            around.progress("editing facts", len(losses), len(facts))
            places = [place for place, other in enumerate(sites) if other == site]
            previous = (Delta(keys=around.previous_keys) + Delta(keys=total.keys)).keys.get(name)
            inner = replace(around, previous_keys={} if previous is None else {name: previous})
            members = [facts[place] for place in places]
            step, found = _edit_site(model, tokenizer, members, layer, contexts, chosen.values, moment, inner)
            apply_delta(model, step)
            total = total + step
            losses.update(zip(places, found, strict=True))
    around.progress("editing facts", len(facts), len(facts))
    notes = {
        "layers": [layer],
        "contexts": list(contexts.prefixes),
        "value_losses": [losses[place] for place in range(len(facts))],
    }
    return replace(total, notes=notes).check_finite()


def _edit_site(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    layer: int,
    contexts: Contexts,
    config: ValueConfig,
    moment: SecondMoment,
    around: Surroundings,
) -> tuple[Delta, tuple[float | None, ...]]:
    """The rank-one delta of the facts of one site on the model as it is now, and the last loss of each fact's search.

    A loss is None where the value was known.
    """
    layout = layout_of(model)
    rows = target_rows(tokenizer, facts[:1], contexts)
    mean = [1 / len(contexts.prefixes)] * len(contexts.prefixes)
    key_I = subject_states(model, layout, rows, mean, layers=[layer], last=layer).keys[layer][:, 0]
    value_O = _mlp_output(model, layout, rows[0].ids[: rows[0].at + 1], layer)

    states_NO = value_O.expand(len(facts), -1)

    def search(_places: list[int]) -> Values:
        beside = companions(facts, around.earlier)
        return find_values(model, tokenizer, facts, layer, states_NO, contexts=contexts, config=config, beside=beside)

    shifts = find_or_reuse(facts, [0] * len(facts), states_NO, around.values, search)
    matrix = layout.mlp_out[layer]
    # Earlier keys count as one token each beside the mean over text.
    protected = protect(moment, float(moment.tokens), around.previous_keys.get(matrix.name))
    weight_OI, direction_I = matrix.matrix.double().cpu(), protected(key_I[:, None])[:, 0]
    goal_O = _without_bias(layout, layer, value_O) + shifts.shift[0].double()
    factors = rome_update(weight_OI, key_I, goal_O, direction_I)
    return replace(matrix_delta(matrix, factors, key_I[:, None]), values=shifts.values), shifts.losses


def _mlp_output(model: Any, layout: Layout, ids: Sequence[int], layer: int) -> Tensor:
    """The MLP's output [O] at the last of these tokens, float64."""
    inputs = pad([ids], device=model.device).inputs()
    seen = capture(lambda: model(**inputs, use_cache=False), outputs={"mlp": layout.mlps[layer]})
    return seen["mlp"][0, -1].detach().double().cpu()


def _without_bias(layout: Layout, layer: int, value_O: Tensor) -> Tensor:
    bias = getattr(layout.mlp_out[layer].module, "bias", None)
    return value_O if bias is None else value_O - bias.detach().double().cpu()
