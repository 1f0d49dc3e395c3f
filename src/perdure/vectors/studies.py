"""One function studied on one model: can it do it in context, which heads carry it, and what their vector does.

Todd et al., "Function Vectors in Large Language Models", ICLR 2024. Shape suffixes: L layers, H query heads,
K head size, D hidden size, B prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.errors import RequestError
from perdure.intervals import paired_interval
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.progress import Progress, silent
from perdure.requests.functions import Function, Pair
from perdure.vectors.activations import function_vector, mean_activations
from perdure.vectors.effects import effects_of, strongest
from perdure.vectors.injection import Sweep, answers_with, random_like, sweep
from perdure.vectors.last_token import LastToken, Patch, Scored
from perdure.vectors.prompts import Prompt, Split, few_shot_prompts, split

Head = tuple[int, int]
"""A layer and a query head in it."""


class VectorConfig(BaseModel):
    """Settings of the study of a function; the published ones where they were published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: int = Field(10, ge=1, description="Pairs shown before a question")
    clean: int = Field(100, ge=1, description="Intact prompts whose activations are averaged")
    shuffled: int = Field(25, ge=1, description="Shuffled prompts on which effects are taken")
    prefilter: int | None = Field(40, ge=1, description="Heads whose effect is run, by attribution; null: all of them")
    heads: int = Field(10, ge=1, description="Heads that make up the vector")
    scored: Scored = Field("first", description="Judge by the first answer token's p, or the whole answer's log p")
    margin: float = Field(
        0.1, ge=0, lt=1, description="By how much intact prompts must do better than shuffled ones, surely"
    )
    validation: int = Field(32, ge=1, description="At most this many questions on which a layer is chosen")
    asked: int = Field(100, ge=1, description="At most this many held-out questions for a figure")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split, of the pairs shown and of shuffling")


@dataclass(frozen=True)
class Evidence:
    """Whether a function tells anything about this model: right answers to the same questions, intact and shuffled.

    Attributes:
        clean: Whether each intact prompt was answered rightly.
        shuffled: The same for prompts with shuffled outputs.
        reason: Why nothing can be learnt from it; empty when something can.
    """

    clean: tuple[bool, ...]
    shuffled: tuple[bool, ...]
    reason: str


@dataclass(frozen=True)
class Traits:
    """What a model's heads do in one function.

    Attributes:
        name: The function's name.
        evidence: Whether it can be done in context.
        mean_LHK: Mean head activations over the intact prompts that were answered rightly.
        effect_LH: Average indirect effect of every head, float64; those beyond the prefilter are estimates.
    """

    name: str
    evidence: Evidence
    mean_LHK: Tensor
    effect_LH: Tensor


@dataclass(frozen=True)
class Judged:
    """What a vector does on held-out questions of one kind: whether each is answered rightly.

    Attributes:
        sweep: How it did at each layer, on other questions of the same kind; the best layer was taken.
        plain: Without it.
        vector: With it added.
        random: With a random vector of the same norm added.
    """

    sweep: Sweep
    plain: tuple[bool, ...]
    vector: tuple[bool, ...]
    random: tuple[bool, ...]

    @property
    def layer(self) -> int:
        """Where the vectors were added."""
        return self.sweep.best


KINDS: Mapping[str, tuple[bool, bool]] = {
    "zero-shot": (False, False),
    "few-shot": (True, False),
    "shuffled": (True, True),
}
"""Kinds of questions: whether pairs are shown, and whether their outputs are shuffled."""


@on_plain_view
def study(
    model: Any,
    tokenizer: Any,
    function: Function,
    config: VectorConfig | None = None,
    progress: Progress = silent,
) -> Traits:
    """Mean activations and effects of the heads in one function; effects stay zero where it tells nothing.

    Raises:
        RequestError: The function has too few different inputs.
    """
    chosen = config or VectorConfig()
    parts = parts_of(function, chosen)
    clean = repeated_prompts(tokenizer, parts.train, chosen.clean, chosen)
    means = mean_activations(model, clean, scored=chosen.scored, progress=progress)
    runs = []
    for place, prompt in enumerate(repeated_prompts(tokenizer, parts.train, chosen.shuffled, chosen, shuffled=True)):
        progress("shuffled prompts", place, chosen.shuffled)
        runs.append(LastToken(model, prompt))
    both = min(chosen.clean, chosen.shuffled)  # the same questions first, in either way
    mixed = [run.is_right(chosen.scored) for run in runs[:both]]
    evidence = weigh(means.right[:both], mixed, chosen.margin)
    effect_LH = torch.zeros(means.mean_LHK.shape[:2], dtype=torch.float64)
    if not evidence.reason:
        effect_BLH = effects_of(
            runs, means.mean_LHK, scored=chosen.scored, prefilter=chosen.prefilter, progress=progress
        )
        effect_LH = effect_BLH.mean(0)
    return Traits(function.name, evidence, means.mean_LHK, effect_LH)


def parts_of(function: Function, config: VectorConfig) -> Split:
    """The function's pairs as they are split under these settings."""
    try:
        return split(function.pairs, config.seed)
    except RequestError as error:
        raise RequestError(f"{function.name}: {error}") from error


def weigh(clean: Sequence[bool], shuffled: Sequence[bool], margin: float) -> Evidence:
    """Whether intact prompts do better than shuffled ones by `margin`, with 95% certainty on the same questions.

    The interval is that of `paired_interval`.
    """
    pairs = list(zip(shuffled, clean, strict=True))
    gained = sum(intact and not mixed for mixed, intact in pairs)
    low, _ = paired_interval(gained, sum(mixed and not intact for mixed, intact in pairs), len(pairs))
    reason = ""
    if low <= margin:
        right, lost = sum(clean) / len(clean), sum(shuffled) / len(shuffled)
        reason = (
            f"intact prompts are answered rightly {right:.0%} of the time, shuffled ones {lost:.0%} "
            f"(n {len(clean)}): not surely {margin:.0%} better, so no head can be seen to carry it"
        )
    return Evidence(tuple(clean), tuple(shuffled), reason)


def universal_heads(traits: Sequence[Traits], count: int) -> list[Head]:
    """The heads with the largest effect averaged over the functions that tell something, the largest first.

    Todd et al. 2024, section 2.3: one set of heads for all functions.

    Raises:
        RequestError: No function tells anything.
    """
    told = [one.effect_LH for one in traits if not one.evidence.reason]
    if not told:
        reasons = "\n".join(f"  {one.name}: {one.evidence.reason}" for one in traits)
        raise RequestError(f"none of {len(traits)} functions shows which heads carry it:\n{reasons}")
    return strongest(torch.stack(told).mean(0), count)


def vector_of(model: Any, traits: Traits, heads: Sequence[Head]) -> Tensor:
    """The function vector [D], float64, from these heads."""
    return function_vector(layout_of(model), traits.mean_LHK, heads)


@on_plain_view
def judge(
    model: Any,
    tokenizer: Any,
    function: Function,
    vector_D: Tensor,
    config: VectorConfig | None = None,
    progress: Progress = silent,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    layers: Sequence[int] = (),
) -> dict[str, Judged]:
    """What the vector does on held-out questions, beside a random vector of the same norm; top-1 of the first token.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        function: The function.
        vector_D: Its vector, or any other.
        config: The settings under which the vector was made.
        progress: Told how far the work is.
        kinds: Names of `KINDS`.
        layers: Where it is tried, one by one, on the validation questions; the middle half when not given.
    """
    chosen, found = config or VectorConfig(), {}
    parts = parts_of(function, chosen)
    tried = list(layers) or list(middle_layers(len(layout_of(model))))
    for kind in kinds:
        shown, shuffled = KINDS[kind]
        ask = partial(few_shot_prompts, tokenizer, parts.train, shots=chosen.shots * shown, shuffled=shuffled)
        validation = ask(parts.validation[: chosen.validation], seed=chosen.seed)
        swept = sweep(model, validation, vector_D, tried, progress)
        rivals = [Patch(swept.best, None, vector_D), Patch(swept.best, None, random_like(vector_D, chosen.seed))]
        right_B3 = answers_with(model, ask(parts.test[: chosen.asked], seed=chosen.seed + 1), rivals, progress)
        found[kind] = Judged(swept, *(tuple(column) for column in right_B3.T.tolist()))
    return found


def middle_layers(depth: int) -> range:
    """The layers at which a vector is tried: from a quarter to three quarters of the depth, where it works if anywhere.

    Todd et al. 2024, section 3.2: about a third of the depth is best; on small models up to two thirds.
    """
    return range(depth // 4, max(depth // 4 + 1, math.ceil(3 * depth / 4)))


def repeated_prompts(
    tokenizer: Any, pairs: Sequence[Pair], count: int, config: VectorConfig, *, shuffled: bool = False
) -> list[Prompt]:
    """`count` questions among these pairs; where there are fewer, they are asked again with others shown."""
    asked = [pairs[place % len(pairs)] for place in range(count)]
    return few_shot_prompts(tokenizer, pairs, asked, config.shots, config.seed, shuffled=shuffled)
