"""What stands beside a shared function vector: which function, which model, which heads, and what it did."""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from perdure.content import digest_json
from perdure.models import Layout
from perdure.vectors.studies import Judged

_VOLATILE = frozenset({"transformers_version", "torch_dtype", "dtype", "use_cache"})  # and names with a leading _

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


def _printable(text: str) -> str:
    if any(unicodedata.category(letter).startswith("C") for letter in text):
        raise ValueError("only printable characters are allowed")
    return text


Words = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Origin(_Part):
    """Which model a vector belongs to; the same for every copy of a model, in whatever workspace it lies."""

    layers: int = Field(ge=1, description="decoder blocks")
    heads: int = Field(ge=1, description="query heads of a block")
    head_dim: int = Field(ge=1, description="size of a head")
    hidden: int = Field(ge=1, le=1 << 20, description="size of the hidden state")
    weights: Hash = Field(description="hash of every tensor's name and content")
    config: Hash = Field(description="hash of what the config says about computing")

    @property
    def structure(self) -> tuple[int, int, int, int]:
        """Layers, heads, head size, hidden size."""
        return self.layers, self.heads, self.head_dim, self.hidden


def origin_of(layout: Layout, hashes: Mapping[str, str], config: Mapping[str, Any]) -> Origin:
    """The origin of vectors of a model.

    Args:
        layout: The model's layout.
        hashes: From the name of each tensor of the checkpoint to its identity (`content.digest_tensor`).
        config: The parsed config.json; what only says where the model came from does not count.
    """
    kept = {name: value for name, value in config.items() if name not in _VOLATILE and not name.startswith("_")}
    return Origin(
        layers=len(layout),
        heads=layout.heads,
        head_dim=layout.head_dim,
        hidden=layout.d_model,
        weights=digest_json(dict(hashes)),
        config=digest_json(kept),
    )


class InContext(_Part):
    """Right answers to prompts that show pairs, on the questions the vector was made from."""

    n: Count = Field(description="prompts")
    clean: Count = Field(description="right with intact pairs")
    shuffled: Count = Field(description="right with shuffled outputs")


class Figure(_Part):
    """Right answers to held-out questions of one kind."""

    n: Count = Field(description="questions")
    plain: Count = Field(description="right without the vector")
    vector: Count = Field(description="right with it")
    random: Count = Field(description="right with a random vector of the same norm")
    layer: Count = Field(description="where both were added")


class VectorHeader(_Part):
    """All that stands beside a vector."""

    format: Literal[1] = 1
    name: Words = Field(description="what the function is called; never a path")
    digest: Hash = Field(description="sha256 of the function's pairs, which are not in the file")
    model: Origin = Field(description="the model it was taken from")
    heads: tuple[tuple[Count, Count], ...] = Field(min_length=1, description="layer and head of each part")
    layer: Count = Field(description="the decoder block after which it works best")
    norm: float = Field(ge=0, description="its Euclidean length")
    settings: dict[Words, bool | int | float | Words | None] = Field(description="how it was made")
    in_context: InContext = Field(description="whether the model can do the function in context")
    figures: dict[Words, Figure] = Field(description="what it does, by kind of questions")
    signer: Words | None = Field(default=None, description="who signed, in their own words")
    time: Words | None = Field(default=None, description="when, in their own words")
    key: Hash | None = Field(default=None, description="the signer's raw public key")
    signature: str | None = Field(default=None, pattern=r"^[0-9a-f]{128}$", description="Ed25519, RFC 8032")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        deepest, widest = self.model.layers, self.model.heads
        if any(layer >= deepest or head >= widest for layer, head in self.heads) or self.layer >= deepest:
            raise ValueError("a head or layer that the model does not have")
        if len(set(self.heads)) != len(self.heads):
            raise ValueError("a head that is named twice")
        if (self.key is None) != (self.signature is None):
            raise ValueError("a key without a signature, or the reverse")
        return self


def figures_of(judged: Mapping[str, Judged]) -> dict[str, Figure]:
    """What was found on held-out questions, as counts."""
    return {
        kind: Figure(
            n=len(one.plain), plain=sum(one.plain), vector=sum(one.vector), random=sum(one.random), layer=one.layer
        )
        for kind, one in judged.items()
    }
