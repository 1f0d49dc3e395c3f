"""The methods that are compared: what each is, and its settings at a strength."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.tuning.defaults import usual_encoder_settings

TOKENS = usual_encoder_settings()["regularizers"][0]["tokens"]
"""Tokens or places of an item that features are held at, in both forms."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        what: One line about it.
        settings: Settings of `EncoderTuningConfig` at a strength.
        strengths: Those that are run when none is named.
        share: Whether the strength is the share of the weights of before, given after the training.
    """

    what: str
    settings: Callable[[float], Mapping[str, Any]]
    strengths: tuple[float, ...] = ()
    share: bool = False


def _held(kind: str, **more: Any) -> Callable[[float], Mapping[str, Any]]:
    return lambda weight: {"regularizers": [{"kind": kind, "weight": weight, **more}]}


METHODS: dict[str, Method] = {
    "naive": Method("all weights and a random head", lambda _: {"head": "random"}),
    "lp_ft": Method("LP-FT: all weights, from a linear probe", lambda _: {}),
    "l2sp": Method("LP-FT held by L2-SP", _held("l2sp"), (0.01, 0.1, 1.0)),
    "wise_ft": Method("WiSE-FT of LP-FT", lambda _: {}, (0.25, 0.5, 0.75), share=True),
    "distillation": Method("LP-FT held by what a linear probe said (LwF)", _held("distillation"), (1.0, 3.0)),
    "ldifs_published": Method(
        "LP-FT held by features divided along the tokens",
        _held("feature_distance", form="published", tokens=TOKENS),
        (3.0, 10.0, 30.0),
    ),
    "ldifs": Method("LP-FT held by unit features", _held("feature_distance", tokens=TOKENS), (0.3, 1.0, 3.0, 10.0)),
}


@dataclass(frozen=True)
class Row:
    """A method at a strength, as `ldifs:3` names it."""

    method: str
    strength: float | None = None

    @property
    def name(self) -> str:
        """How it is asked for."""
        return self.method if self.strength is None else f"{self.method}:{self.strength:g}"

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings of `EncoderTuningConfig`."""
        return dict(METHODS[self.method].settings(self.strength or 0.0))

    @property
    def share(self) -> float | None:
        """The share of the weights of before, where it is given after the training."""
        return self.strength if METHODS[self.method].share else None


def rows_named(names: str) -> list[Row]:
    """Rows by their names, comma-separated; a method alone stands for all its strengths.

    Raises:
        SystemExit: There is no such method, or it has no strength.
    """
    found = []
    for name in names.split(","):
        method, _, strength = name.strip().partition(":")
        if method not in METHODS or (strength and not METHODS[method].strengths):
            raise SystemExit(f"no row {name!r}; known: {', '.join(METHODS)}, those with a strength as {method}:3")
        chosen: tuple[float | None, ...] = (float(strength),) if strength else METHODS[method].strengths or (None,)
        found += [Row(method, each) for each in chosen]
    return found
