"""Choosing how strongly to restrain an edit: the curve of edit success against what the model loses, measured."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.deltas import Delta
from perdure.deltas.restraint import PruneConfig
from perdure.editing.applying import applied
from perdure.editing.statistics import built_in_texts
from perdure.errors import EditError
from perdure.measuring.course import TradeOff
from perdure.measuring.divergence import Distributions, distributions, mean_divergence
from perdure.measuring.sequences import in_force, knows
from perdure.measuring.statistics import share_of
from perdure.models.tokens import encode
from perdure.requests import Fact
from perdure.workspace.records import Version
from perdure.workspace.updates import Restraint

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

CEILINGS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
_ALPHA = 1e8  # nearly a ceiling: a value six times above it becomes 1.1 of it
TOLERANCE = 0.05
_FACTS, _PASSAGES, _TOKENS, _SEED = 100, 12, 128, 0


def trade_off(
    shop: "Workspace",
    base: Version,
    restrained: Callable[[Restraint], Delta],
    facts: Sequence[Fact],
    network: tuple[Any, Any],
) -> tuple[TradeOff, ...]:
    """The curve over the strengths of PRUNE, from none to 0.15 σ*, with the point that was chosen.

    Success is asked of at most 100 facts drawn from all that are in force, loss is KL(base ‖ edited) on built-in
    text, as the restraint works on all that was solved since the base; neither is used by the report's retention
    suite. Strengths that change nothing beyond the one before are not asked again.

    Args:
        shop: The workspace.
        base: The base of the lineage.
        restrained: From a restraint to what the edit then adds to the parent's weights.
        facts: The facts in force once it is applied.
        network: The parent's model and tokenizer.

    Raises:
        EditError: The edited model gives NaN at every strength.
    """
    asked = in_force(facts)
    asked = asked if len(asked) <= _FACTS else random.Random(_SEED).sample(asked, _FACTS)
    original = _distributions(*shop.load(base))
    shop.unload()
    model, tokenizer = network
    points: list[TradeOff] = []
    norms: dict[str, float] = {}
    for number, (name, config) in enumerate(_strengths()):
        shop.progress("choosing the restraint", number, len(CEILINGS) + 1)
        step = restrained((name, config))
        if points and step.norms() == norms:
            continue
        norms = step.norms()
        with applied(model, step):
            kept = share_of(knows(model, tokenizer, asked))
            points.append(
                TradeOff(restraint=name, config=dict(config), kept=kept, divergence=mean_divergence(model, original))
            )
    shop.progress("choosing the restraint", len(CEILINGS) + 1, len(CEILINGS) + 1)
    return choose(points)


def choose(points: Sequence[TradeOff], tolerance: float = TOLERANCE) -> tuple[TradeOff, ...]:
    """The points with one marked: the smallest loss among those that keep all but 5 points of the best success.

    Points whose loss is not a finite number are left out.

    Raises:
        EditError: None is left.
    """
    points = [point for point in points if math.isfinite(point.divergence)]
    if not points:
        raise EditError(
            "the edited model gives NaN at every strength of the restraint; teach fewer facts, or lower values.clamp"
        )
    best = max(point.kept.value for point in points)
    enough = [point for point in points if point.kept.value >= best - tolerance]
    least = min(enough, key=lambda point: point.divergence)
    return tuple(point.model_copy(update={"chosen": point is least}) for point in points)


def weakest() -> Restraint:
    """The weakest restraint among the strengths, but for none."""
    return _strengths()[1]


def _strengths() -> list[tuple[str, Mapping[str, Any]]]:
    """From none to strong: PRUNE with its ceiling σ* scaled down, in the form that means the same in every unit."""
    configs = [PruneConfig(form="scale_free", alpha=_ALPHA, ceiling=share) for share in CEILINGS]
    return [("none", {"kind": "none"}), *(("prune", config.model_dump(mode="json")) for config in configs)]


def _distributions(model: Any, tokenizer: Any) -> Distributions:
    """What a model says after every token of some built-in text."""
    return distributions(model, [encode(tokenizer, text)[:_TOKENS] for text in built_in_texts()[:_PASSAGES]])
