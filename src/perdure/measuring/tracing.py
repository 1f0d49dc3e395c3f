"""A causal trace as the report shows it: mean effects with intervals over facts, and the layers that they suggest."""

from collections.abc import Mapping
from typing import Any

from perdure.editing.corruption import TOKEN_CLASSES
from perdure.editing.tracing import STATES, Trace, choose_layers
from perdure.errors import SettingError
from perdure.measuring.shares import Difference
from perdure.measuring.statistics import mean_difference
from perdure.measuring.traced import TraceLine, TraceMeasures

_DIGITS = 6  # of a probability; what is kept should not hold the rounding of one machine


def build_trace(trace: Trace, identity: str, settings: Mapping[str, Any]) -> TraceMeasures:
    """The measures of a trace; an effect's interval is over the facts, each of which counts once.

    Args:
        trace: The trace.
        identity: What names it: a hash of the model, the facts and the settings.
        settings: The resolved settings, to be shown.
    """
    lines = [
        TraceLine(state=state, tokens=tokens, effects=effects)
        for state in STATES
        for tokens in TOKEN_CLASSES
        if (effects := _effects(trace, state, tokens)) is not None
    ]
    carried = next(line for line in lines if (line.state, line.tokens) == ("mlp", "last subject token"))
    aie_by_layer = [effect.value for effect in carried.effects]
    try:
        layers, (layer,) = choose_layers(aie_by_layer), choose_layers(aie_by_layer, 1)
    except SettingError:  # nothing is restored anywhere: there is no choice to offer
        layers, layer = [], None
    return TraceMeasures(
        id=identity,
        facts=len(trace.clean),
        left_out=dict(trace.left_out),
        clean=round(float(trace.clean.mean()), _DIGITS),
        lost=_rounded(mean_difference((trace.clean - trace.corrupted).tolist())),
        window=trace.window,
        settings=dict(settings),
        lines=tuple(lines),
        layers=tuple(layers),
        layer=layer,
    )


def _effects(trace: Trace, state: str, tokens: str) -> tuple[Difference, ...] | None:
    """The effect at each layer; None where no fact has such a token."""
    effect_FL = trace.effects_of(state, tokens)
    if not len(effect_FL):
        return None
    return tuple(_rounded(mean_difference(effect_F.tolist())) for effect_F in effect_FL.T)


def _rounded(given: Difference) -> Difference:
    low, value, high = (round(number, _DIGITS) + 0.0 for number in (given.low, given.value, given.high))
    return Difference(value=value, low=low, high=high, n=given.n)
