"""An invented trace of 30 layers: MLPs early at the subject, hidden states early there and late at the end."""

import math

from perdure.editing.corruption import TOKEN_CLASSES
from perdure.measuring.shares import Difference
from perdure.measuring.traced import TraceLine, TraceMeasures

DEPTH = 30
_PEAKS = {  # state and tokens: where most is given back, how much, how wide
    ("mlp", "first subject token"): (3, 0.02, 3),
    ("mlp", "middle subject tokens"): (4, 0.01, 3),
    ("mlp", "last subject token"): (5, 0.11, 3),
    ("mlp", "first token after"): (9, 0.02, 4),
    ("mlp", "further tokens"): (12, 0.01, 4),
    ("mlp", "last token"): (22, 0.04, 4),
    ("hidden", "first subject token"): (2, 0.05, 4),
    ("hidden", "middle subject tokens"): (3, 0.03, 4),
    ("hidden", "last subject token"): (6, 0.24, 6),
    ("hidden", "first token after"): (12, 0.06, 5),
    ("hidden", "further tokens"): (15, 0.05, 5),
    ("hidden", "last token"): (29, 0.36, 7),
}


def _effect(state, tokens, layer):
    peak, height, width = _PEAKS[state, tokens]
    value = height * math.exp(-(((layer - peak) / width) ** 2)) - 0.004
    return Difference(value=value, low=value - 0.012, high=value + 0.012, n=40 if "middle" in tokens else 88)


def trace(**changes):
    lines = [
        TraceLine(state=state, tokens=tokens, effects=tuple(_effect(state, tokens, at) for at in range(DEPTH)))
        for state in ("mlp", "hidden")
        for tokens in TOKEN_CLASSES
    ]
    given = {
        "id": "7ace" * 16,
        "facts": 88,
        "left_out": {"the model does not know it: another token ranks first": 62},
        "clean": 0.52,
        "lost": Difference(value=0.38, low=0.33, high=0.43, n=88),
        "window": 6,
        "settings": {"noise": 3.0, "draws": 5, "window": None, "seed": 0},
        "lines": tuple(lines),
        "layers": (4, 5, 6, 7),
        "layer": 5,
    }
    return TraceMeasures(**given | changes)
