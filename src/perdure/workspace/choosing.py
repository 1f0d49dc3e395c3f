"""Choosing how strongly to restrain an edit: the curve of edit success against what the model loses, measured."""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.deltas import Delta
from perdure.deltas.restraint import PruneConfig
from perdure.editing.applying import applied
from perdure.editing.statistics import built_in_texts
from perdure.measuring.course import TradeOff
from perdure.measuring.divergence import distributions, mean_divergence
from perdure.measuring.sequences import in_force, knows
from perdure.measuring.statistics import share_of
from perdure.models.tokens import encode
from perdure.requests import Fact
from perdure.workspace.records import Version
from perdure.workspace.updates import next_step

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

CEILINGS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
_ALPHA = 10.0  # with the paper's 1.2 the logarithm alone lets a value exceed σ* by half, whatever the ceiling
TOLERANCE = 0.05
_FACTS, _PASSAGES, _TOKENS, _SEED = 100, 12, 128, 0


def trade_off(
    shop: "Workspace", parent: Version, solved: Delta, facts: Sequence[Fact], network: tuple[Any, Any]
) -> tuple[TradeOff, ...]:
    """The curve over the strengths of PRUNE, from none to 0.15 σ*, with the point that was chosen.

    Success is asked of at most 100 facts drawn from all that are in force, loss is KL(parent ‖ edited) on built-in
    text; neither is used by the report's retention suite. Strengths that change nothing beyond the one before are
    not asked again.

    Args:
        shop: The workspace.
        parent: The version that was edited.
        solved: What the edit solved.
        facts: The facts in force once it is applied.
        network: The parent's model and tokenizer.
    """
    model, tokenizer = network
    asked = in_force(facts)
    asked = asked if len(asked) <= _FACTS else random.Random(_SEED).sample(asked, _FACTS)
    original = distributions(model, [encode(tokenizer, text)[:_TOKENS] for text in built_in_texts()[:_PASSAGES]])
    points: list[TradeOff] = []
    norms: dict[str, float] = {}
    for number, (name, config) in enumerate(_strengths()):
        shop.progress("choosing the restraint", number, len(CEILINGS) + 1)
        step = next_step(shop.archive, parent, solved, name, config)
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
    """The points with one marked: the smallest loss among those that keep all but 5 points of the best success."""
    best = max(point.kept.value for point in points)
    enough = [point for point in points if point.kept.value >= best - tolerance]
    least = min(enough, key=lambda point: point.divergence)
    return tuple(point.model_copy(update={"chosen": point is least}) for point in points)


def _strengths() -> list[tuple[str, Mapping[str, Any]]]:
    """From none to strong: PRUNE with its ceiling σ* scaled down."""
    prune = [("prune", PruneConfig(ceiling=share, alpha=_ALPHA).model_dump(mode="json")) for share in CEILINGS]
    return [("none", {"kind": "none"}), *prune]
