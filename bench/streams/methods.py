"""The methods that are compared: what each is, and what users know it as."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perdure.tuning.defaults import usual_settings

Way = Literal["each", "one", "pool", "joint"]
"""each: a change of its own for every task, added up; one: one adapter that goes on; pool: the base frozen, adapters
routed; joint: all tasks at once."""


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        name: What the table calls it.
        what: One line about it.
        settings: Settings of `TuningConfig`.
        way: How its changes come together.
    """

    name: str
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    way: Way = "each"


def _held(*kinds: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"regularizers": list(kinds), **more}


def _but(kind: str) -> list[Mapping[str, Any]]:
    return [each for each in usual_settings()["regularizers"] if each["kind"] != kind]


ROWS = (
    Row("lora", "one LoRA adapter, trained on one task after another", way="one"),
    Row("inclora", "a LoRA adapter for each task, added up"),
    Row("full", "all projection matrices of the blocks", {"method": "full", "learning_rate": 2e-5}),
    Row("ewc", "inclora held by EWC", _held({"kind": "ewc"})),
    Row("kfac", "inclora held by Kronecker-factored curvature of earlier tasks", _held({"kind": "kfac"})),
    Row("l2sp", "inclora held by L2-SP", _held({"kind": "l2sp"})),
    Row("orthogonal", "O-LoRA", _held({"kind": "orthogonal"})),
    Row("distillation", "inclora held by KL to the model before", _held({"kind": "distillation"})),
    Row("replay", "inclora with 5 % of rows from earlier tasks", {"replay": {"share": 0.05}}),
    Row("ratio", "inclora, .2 of the weights of before", {"averaging": {"form": "ratio"}}),
    Row("ldifs", "inclora held by the distance of features", _held({"kind": "feature_distance"})),
    Row("function_vector", "inclora held by function vectors", _held({"kind": "function_vector"})),
    Row("ema_fixed", "inclora, EMA .99 at every step", {"averaging": {"form": "fixed"}}),
    Row("ema_published", "inclora, LCIA's EMA as published", {"averaging": {"form": "published"}}),
    Row("ema_sound", "inclora, the sound dynamic average", {"averaging": {"form": "sound"}}),
    Row("pool", "frozen base, routed adapters", way="pool"),
    Row("no_kfac", "the usual settings without kfac", {**usual_settings(), "regularizers": _but("kfac")}),
    Row("usual", "perdure's default: kfac, ema_sound, and what the model writes itself held by KL", usual_settings()),
    Row("joint", "all tasks at once: the ceiling", way="joint"),
)


def row_named(name: str) -> Row:
    """A row by its name.

    Raises:
        SystemExit: There is none.
    """
    found = {row.name: row for row in ROWS}
    if name not in found:
        raise SystemExit(f"no row {name!r}; known: {', '.join(found)}")
    return found[name]
