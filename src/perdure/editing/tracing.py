"""Causal tracing: which states of a model carry its answer to a fact, by layer and token.

Meng et al., "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section 2. Three runs: clean;
corrupted, with noise on the subject's embeddings; and corrupted with a clean state put back. What that gives
back of the answer's probability is the state's indirect effect. The noise of a fact is drawn once, so every
restoration is compared with the corrupted run that it started from.

Shape suffixes: K kinds of state, F facts, L layers, C token classes, P traced tokens (from the subject's
first one on), S draws of noise.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.editing.corruption import TOKEN_CLASSES, Noise, TracedFact, embedding_spread, traced_row
from perdure.editing.tracing_runs import Tracer
from perdure.errors import RequestError, SettingError
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.progress import Progress, silent

STATES = ("mlp", "hidden")


class TraceConfig(BaseModel):
    """Settings of causal tracing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: float = Field(3.0, gt=0, description="Standard deviation of the noise, in those of the embeddings")
    draws: int = Field(3, ge=1, le=100, description="Draws of noise for each fact")
    window: int | None = Field(
        None, ge=1, description="Neighbouring MLPs restored together; 10/48 of the depth when not given"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the noise")


@dataclass(frozen=True)
class Trace:
    """What restoring each state gives back, fact by fact; probabilities are of the answer's first token.

    Attributes:
        clean: Probability in the clean run [F], float64.
        corrupted: Probability in the corrupted run, mean over noise [F].
        effects: Probability restored − corrupted, mean over noise and the tokens of a class [K, F, L, C];
            NaN where a fact has no token of the class. K as STATES, C as TOKEN_CLASSES.
        left_out: From a reason to how many facts were not traced for it.
        window: How many neighbouring MLPs were restored together.
    """

    clean: Tensor
    corrupted: Tensor
    effects: Tensor
    left_out: Mapping[str, int]
    window: int

    def effects_of(self, state: str, token_class: str) -> Tensor:
        """The indirect effects [F', L] of a kind of state at a token class, of the facts that have one."""
        effect_FL = self.effects[STATES.index(state), :, :, TOKEN_CLASSES.index(token_class)]
        return effect_FL[~effect_FL[:, 0].isnan()]


def window_length(depth: int) -> int:
    """How many layers to edit: a tenth of the depth and one more, as in the published settings."""
    return round(0.1 * depth) + 1


def choose_layers(aie_by_layer: Sequence[float], count: int | None = None) -> list[int]:
    """The `count` neighbouring layers with the largest sum of average indirect effects; the lowest of equal ones.

    The last block is never chosen: no attention above it could read what is written there.

    Args:
        aie_by_layer: Average indirect effect of the MLP of each layer at the subject's last token.
        count: How many layers; `window_length` of the depth when not given.

    Raises:
        SettingError: The count does not fit, an effect is not finite, or no window has a positive effect.
    """
    depth, usable = len(aie_by_layer), max(len(aie_by_layer) - 1, 1)
    length = min(window_length(depth), usable) if count is None else count
    if not 1 <= length <= usable or depth == 0:
        raise SettingError(f"of {depth} layers between 1 and {usable} can be chosen; given {length}")
    if not all(map(math.isfinite, aie_by_layer)):
        raise SettingError("an average indirect effect is not finite; trace again")
    sums = [math.fsum(aie_by_layer[first : first + length]) for first in range(usable - length + 1)]
    if max(sums) <= 0:
        raise SettingError("no MLP restores anything at the subject's last token; choose the layers by depth")
    first = sums.index(max(sums))
    return list(range(first, first + length))


@on_plain_view
def trace_facts(
    model: Any,
    tokenizer: Any,
    facts: Sequence[TracedFact],
    config: TraceConfig | None = None,
    progress: Progress = silent,
) -> Trace:
    """The indirect effect of every MLP window and every hidden state, for each fact that the model knows.

    A fact is traced when the first token of its answer ranks first and the noise lowers its probability. The
    model is left as it was. Cost: `docs/methods/tracing.md`.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        facts: Facts that it may know.
        config: The settings.
        progress: Told how many facts are done.

    Raises:
        RequestError: No fact can be traced; the reasons are counted.
    """
    chosen, left_out, rows = config or TraceConfig(), Counter[str](), []
    for fact in facts:
        try:
            rows.append(traced_row(tokenizer, fact))
        except RequestError as error:
            left_out[str(error)] += 1
    if not rows:
        raise _nothing_traced(left_out)
    window = chosen.window or max(1, round(len(layout_of(model)) * 10 / 48))
    noise = Noise(chosen.noise * embedding_spread(model, rows), chosen.draws, chosen.seed)
    tracer = Tracer(model, window, noise)
    found = []
    for number, row in enumerate(rows):
        progress("tracing facts", number, len(rows))
        runs = tracer.start(row)
        if runs.reason:
            left_out[runs.reason] += 1
        else:
            found.append((runs.clean, float(runs.corrupted_S.mean()), tracer.effects(runs)))
    progress("tracing facts", len(rows), len(rows))
    if not found:
        raise _nothing_traced(left_out)
    clean, corrupted, effects = zip(*found, strict=True)
    wide = torch.float64
    return Trace(
        torch.tensor(clean, dtype=wide),
        torch.tensor(corrupted, dtype=wide),
        torch.stack(effects, 1),
        dict(left_out),
        window,
    )


def _nothing_traced(left_out: Mapping[str, int]) -> RequestError:
    reasons = "; ".join(f"{count}: {reason}" for reason, count in left_out.items()) or "none was given"
    return RequestError(f"no fact can be traced ({reasons}). Give facts that the model knows, each naming its subject")
