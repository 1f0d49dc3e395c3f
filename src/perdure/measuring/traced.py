"""What a causal trace of the base found, as data."""

from typing import Any

from pydantic import Field

from perdure.measuring.shares import Data, Difference


class TraceLine(Data):
    """What restoring one kind of state at one class of tokens gives back, layer by layer.

    Attributes:
        state: "mlp" (a window of neighbouring MLPs, centred on the layer) or "hidden" (the block's output).
        tokens: The class, such as "last subject token".
        effects: Of each layer, the average indirect effect: probability of the answer restored − corrupted, over
            the n facts that have such a token.
    """

    state: str
    tokens: str
    effects: tuple[Difference, ...]


class TraceMeasures(Data):
    """Where the base carries the facts that it knows: causal tracing, Meng et al. 2022.

    Attributes:
        id: The sha256 (hex) of the model's id, the facts and the settings.
        facts: How many were traced.
        left_out: From a reason, in words, to how many facts were not traced for it.
        clean: Mean probability of the answers.
        lost: What the noise on the subject takes from it, clean − corrupted.
        window: How many neighbouring MLPs were restored together.
        settings: The resolved settings.
        lines: Every kind of state at every class of tokens that occurs.
        layers: The neighbouring layers whose MLPs carry most at the subject's last token; none where nothing does.
        layer: The single layer with the largest effect there.
    """

    id: str
    facts: int
    left_out: dict[str, int] = Field(default_factory=dict)
    clean: float
    lost: Difference
    window: int
    settings: dict[str, Any]
    lines: tuple[TraceLine, ...]
    layers: tuple[int, ...] = ()
    layer: int | None = None

    def line(self, state: str, tokens: str) -> TraceLine | None:
        """The line of one kind of state at one class of tokens; None if no fact has such a token."""
        return next((line for line in self.lines if (line.state, line.tokens) == (state, tokens)), None)
