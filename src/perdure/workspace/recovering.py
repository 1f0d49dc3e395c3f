"""Recovery without training: a candidate whose weights carry a skill's old vector, or take an intruder's away.

Jiang et al., ICLR 2025, section 5: a skill that an update seems to have erased often comes back when its vector is
added, or that of the new task subtracted. Here the vector becomes the bias of one block's MLP, so it works at every
token, and the candidate is measured, gated and approved like any other.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from perdure.deltas import Change, Delta
from perdure.editing.layers import check_writable
from perdure.errors import RefusedError, RequestError
from perdure.measuring.skill_comparison import Bench, traits_of
from perdure.models import layout_of
from perdure.requests.functions import Function
from perdure.vectors import VectorConfig, few_shot_prompts, injected, universal_heads, vector_of
from perdure.vectors.bias import injection_of
from perdure.vectors.injection import answered
from perdure.vectors.studies import middle_layers, parts_of
from perdure.workspace.contents import Room
from perdure.workspace.pools import refuse_pool
from perdure.workspace.skills import bench_of, side_of

if TYPE_CHECKING:
    from perdure.vectors import Prompt
    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace

Way = Literal["add", "subtract"]
INJECTION = "injection"
"""The kind of a recipe that adds a vector."""
_STRENGTHS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Tried:
    """One way to put a vector in: how many validation questions are right with it, over all skills and of this one.

    Attributes:
        layer: The block; None for the model as it is.
        strength: What the vector, turned round where it is taken away, is multiplied by.
        right: Right answers over all skills.
        own: Right answers about the skill that is to come back, where one is.
    """

    layer: int | None
    strength: float
    right: int
    own: int


def recover(
    shop: "Workspace",
    version: "Version",
    function: Function,
    *,
    way: Way,
    source: "Version",
    others: Sequence[Function],
    config: VectorConfig,
    actor: str,
) -> "Version":
    """A candidate with the function's vector added to it, or taken away; layer and strength by validation questions.

    Args:
        shop: The workspace.
        version: The version that lost something.
        function: The skill that is to come back (`add`), or the task that drowns others out (`subtract`).
        way: Add the vector that `source` had for it, or subtract the one that `version` has.
        source: A version that could do it.
        others: Skills that must not suffer; those that `source` cannot do in context are left out.
        config: The settings of the vectors.
        actor: Who asks.

    Raises:
        RequestError: The model that gives the vector cannot do the function in context.
        RefusedError: No layer and strength does better than the model as it is, or it answers with a pool.
        ModelError: The architecture's weights cannot carry a vector.
    """
    refuse_pool(version, "roll a group back with perdure pool rollback")
    bench = bench_of(shop, config)
    giver = source if way == "add" else version
    theta_D, heads = _vector(shop, giver, function, others, bench)
    sign = 1 if way == "add" else -1
    vector_D = sign * theta_D
    config_file = shop.archive.side_files(version)["config.json"]
    injection_of(shop.layout(version), config_file, 0, vector_D)  # refused before anything is tried
    kept = {each.name: each for each in others if not traits_of(side_of(shop, source), each, bench).evidence.reason}
    if way == "add":
        kept[function.name] = function
    model, tokenizer = shop.load(version)
    check_writable(model, layout_of(model), 0)  # Granite scales what its MLPs give: a bias would be scaled, too
    asked = {name: _questions(tokenizer, each, config) for name, each in kept.items()}
    tried = _try_all(model, asked, function.name, vector_D, shop.progress)
    best = choose(tried)
    added = injection_of(layout_of(model), config_file, best.layer or 0, best.strength * vector_D)
    details = {
        "kind": INJECTION,
        "function": function.name,
        "function_digest": function.digest,
        "way": way,
        "source": giver.id,
        "heads": [list(head) for head in heads],
        "layer": best.layer,
        "strength": best.strength * sign,
        "config": config.model_dump(mode="json"),
        "tried": [vars(one) for one in tried],
        "questions": sum(map(len, asked.values())),
    }
    files = {} if added.config is None else {"config.json": added.config}
    return shop.archive.commit(
        version,
        Delta({added.name: Change(dense=added.vector_D)}),
        solved=Delta(notes={"facts": []}),
        recipe=details,
        actor=actor,
        room=Room(added.added, files),
    )


def choose(tried: Sequence[Tried]) -> Tried:
    """The way with the most right answers over all skills, of equals that with the most of its own, then the weakest.

    Raises:
        RefusedError: None does better than the model as it is.
    """
    plain = next(one for one in tried if one.layer is None)
    best = max(tried, key=lambda one: (one.right, one.own, -abs(one.strength)))
    if (best.right, best.own) <= (plain.right, plain.own) or best.layer is None:
        nearest = max((one for one in tried if one.layer is not None), key=lambda one: (one.right, one.own))
        raise RefusedError(
            f"no layer and strength helps: {plain.right} validation questions are right as it is, at most "
            f"{nearest.right} with the vector (layer {nearest.layer}, strength {nearest.strength:g}). Nothing was made"
        )
    return best


def _vector(
    shop: "Workspace", giver: "Version", function: Function, others: Sequence[Function], bench: Bench
) -> tuple[Tensor, list[tuple[int, int]]]:
    side = side_of(shop, giver)
    own = traits_of(side, function, bench)
    if own.evidence.reason:
        raise RequestError(f"{giver.name} has no vector for {function.name}: {own.evidence.reason}")
    rest = [traits_of(side, each, bench) for each in others if each.name != function.name]
    heads = universal_heads([own, *rest], bench.config.heads)
    model, _ = shop.load(giver)
    return vector_of(model, own, heads), heads


def _questions(tokenizer: Any, function: Function, config: VectorConfig) -> "list[Prompt]":
    parts = parts_of(function, config)
    return few_shot_prompts(tokenizer, parts.train, parts.validation[: config.validation], config.shots, config.seed)


def _try_all(
    model: Any,
    asked: "Mapping[str, list[Prompt]]",
    name: str,
    vector_D: Tensor,
    progress: Callable[[str, int, int], None],
) -> list[Tried]:
    """The model as it is, and the vector at every third of the middle layers in every strength."""
    layers = list(middle_layers(len(layout_of(model))))[::3]
    ways: list[tuple[int | None, float]] = [(None, 0.0), *((layer, s) for layer in layers for s in _STRENGTHS)]
    found = []
    for place, (layer, strength) in enumerate(ways):
        progress("layers and strengths", place, len(ways))
        with nullcontext() if layer is None else injected(model, strength * vector_D, layer):
            found.append(_tried(model, asked, name, layer, strength))
    progress("layers and strengths", len(ways), len(ways))
    return found


def _tried(model: Any, asked: "Mapping[str, list[Prompt]]", name: str, layer: int | None, strength: float) -> Tried:
    right = {each: sum(answered(model, prompts)) for each, prompts in asked.items()}
    return Tried(layer, strength, sum(right.values()), right.get(name, 0))
