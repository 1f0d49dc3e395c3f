"""The combination that is used where nothing else is asked for: what held best in `python -m bench.continual`."""

from typing import Any


def usual_settings() -> dict[str, Any]:
    """The usual settings of a tuning, as a user would give them."""
    return {
        "regularizers": [{"kind": "kfac"}, {"kind": "distillation", "on": "anchors"}],
        "anchors": 32,
        "averaging": {"form": "sound"},
    }


def usual_encoder_settings() -> dict[str, Any]:
    """The usual settings of an encoder's tuning: from a linear probe on, held by the distance of features.

    The weight is the one of `python -m bench.concepts` that stays within a point of naive fine-tuning's accuracy; more
    keeps more and learns less.
    """
    return {"head": "linear_probe", "regularizers": [{"kind": "feature_distance", "weight": 0.3, "tokens": 16}]}


def usual_pool_settings() -> dict[str, Any]:
    """The usual settings of a tuning in a pool: averaging alone, as only requests like the task's meet its adapter."""
    return {"averaging": {"form": "sound"}}
