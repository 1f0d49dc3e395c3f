"""Function-vector guidance: heads that carry skills stay as they were, and the new skill comes as its vector says.

Jiang et al., "Unlocking the Power of Function Vectors for Characterizing and Mitigating Catastrophic Forgetting in
Continual Instruction Tuning", ICLR 2025. Shape suffixes: B rows, T tokens, S heads of the set, K head size, D hidden
size, L layers, H query heads.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from perdure.errors import RequestError, SettingError
from perdure.models import layout_of, patch_output
from perdure.models.adapters import bare
from perdure.registry import regularizers
from perdure.requests.functions import Pair
from perdure.tuning.encoding import IGNORED, Collated
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.reading import evenly
from perdure.tuning.regularizer import Reference, RegularizerConfig, Run, State, cache_file
from perdure.tuning.stores import RowStore, stored
from perdure.tuning.token_run import TokenRun
from perdure.tuning.top_k import Targets, divergence, seen_through, targets
from perdure.vectors import few_shot_prompts, function_vector, mean_activations
from perdure.vectors.prompts import Prompt

Heads = Sequence[tuple[int, int]]


class FunctionVectorConfig(RegularizerConfig):
    """Settings of function-vector guidance; the published weights."""

    kind: Literal["function_vector"] = "function_vector"
    consistency: float = Field(1.0, ge=0, description="α₁: how strongly the heads are held")
    guidance: float = Field(0.08, ge=0, description="α₂: how strongly answers follow the vector of the new task")
    reference: Reference = Field("previous", description="The model before this task, or the one before all")
    heads: tuple[tuple[int, int], ...] | None = Field(
        None,
        min_length=1,
        description="Heads (layer, head) that are held; those that carry known skills if not given",
    )
    layer: int | None = Field(None, ge=0, description="Block whose output takes the vector; the middle one if none")
    shots: int = Field(5, ge=1, description="Examples shown before each question of the new task's vector")
    prompts: int = Field(20, ge=1, description="Questions over which the new task's vector is averaged")
    top_k: int = Field(64, ge=1, description="Tokens of each distribution that are told apart; the rest is one outcome")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the questions and of the examples shown")

    @property
    def holds_anchors(self) -> bool:
        """Always."""
        return True


@regularizers.register("function_vector", config=FunctionVectorConfig, paper="Jiang et al., ICLR 2025, 2502.11019")
class FunctionVector:
    """Holds the heads that carry skills, and guides answers by the new task's vector: α₁ ℓ_FV + α₂ ℓ_KL."""

    def __init__(self, config: FunctionVectorConfig) -> None:
        self._config = config
        self._heads: Heads = ()

    def taps(self, model: Any) -> Taps:
        """What the attention's output projections read, in the layers of the heads."""
        layout = layout_of(model)
        return {f"heads {layer}": (layout.attention_out[layer].module, "input") for layer in self._layers()}

    def prepare(self, run: Run) -> None:
        """Read, once, the heads of the reference at the last input token and what it expects with the vector added.

        Raises:
            SettingError: No heads were given and there is no way to find them, the layer does not exist, or the
                network writes no text.
        """
        if not isinstance(run, TokenRun):
            raise SettingError(
                "the regularizer function_vector holds heads that write; an encoder has none. Take feature_distance"
            )
        config = self._config
        with run.reference(config.reference) as model:
            self._layout = layout_of(model)
            self._heads = _chosen(config, run, model)
            self._reference = self._read_heads(model, run) if config.consistency else None
            self._targets = self._read_targets(model, run) if config.guidance else None
        self._layout = layout_of(run.model)

    def penalty(self, seen: Seen) -> Tensor:
        """α₁ Σ_S ‖h_reference − h‖², mean over rows, plus α₂ KL[model ‖ reference with θ], mean over answer tokens."""
        total = seen.logits_NV.new_zeros((), dtype=torch.float32)
        if self._reference is not None:
            before_BSK = self._reference.rows(seen.batch.numbers)
            total = total + self._config.consistency * head_distance(self._at_heads(seen), before_BSK)
        if self._targets is not None:
            expected = self._targets.of(seen)
            now = seen_through(seen.logits_NV, expected.ids_NK)
            total = total + self._config.guidance * divergence(now, expected).mean()
        return total

    def after_task(self, _run: Run) -> State:
        """Nothing: heads and vectors are of the model, not of earlier data."""
        return {}

    def _layers(self) -> list[int]:
        return sorted({layer for layer, _ in self._heads}) if self._config.consistency else []

    def _at_heads(self, seen: Seen) -> Tensor:
        """The activations [B, S, K] of the heads at the last input token, float32."""
        asked_B, size = cast("Collated", seen.batch).asked_B, self._layout.head_dim
        rows_B = torch.arange(len(asked_B))
        last = {layer: seen.taps[f"heads {layer}"][rows_B, asked_B] for layer in self._layers()}
        return torch.stack([last[at][:, head * size : (head + 1) * size] for at, head in self._heads], 1).float()

    def _read_heads(self, model: Any, run: TokenRun) -> RowStore:
        def fill() -> Iterable[tuple[int, Tensor]]:
            for seen in run.read(model, self.taps(model), stage="heads of the reference"):
                yield from zip(seen.batch.numbers, torch.split(self._at_heads(seen), 1), strict=True)

        shape = (len(self._heads), self._layout.head_dim)
        path = cache_file(run, self._config.reference, {"kind": "heads", "heads": [list(at) for at in self._heads]})
        file = None if path is None else path.with_suffix(".npy")
        return stored([1] * len(run.rows), shape, torch.float32, fill, path=file)

    def _read_targets(self, model: Any, run: TokenRun) -> Targets:
        config = self._config
        theta_D = task_vector(model, run.tokenizer, run.pairs, self._heads, config, progress=run.around.progress)
        layer = _layer(config, len(self._layout))
        settings = {"kind": "guided", "theta": theta_D.tolist(), "layer": layer, "top_k": config.top_k}
        return targets(
            run,
            model,
            config.top_k,
            path=cache_file(run, config.reference, settings),
            patch=_adding(model, theta_D, layer),
            stage="answers of the guided reference",
        )


def head_distance(now_BSK: Tensor, reference_BSK: Tensor) -> Tensor:
    """ℓ_FV: Σ over the heads S of ‖h_reference − h‖², mean over rows B (Jiang et al. 2025, equation 6)."""
    return (now_BSK - reference_BSK.to(now_BSK)).square().sum((1, 2)).mean()


def task_vector(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    heads: Heads,
    config: FunctionVectorConfig,
    **reading: Any,
) -> Tensor:
    """θ [D] of a task from prompts with examples of it; zero where the task gives no such prompts.

    All prompts count, answered rightly or not: what is looked for is what the examples say, and a task worth tuning
    is one that the model cannot do yet.
    """
    layout = layout_of(model)
    prompts = task_prompts(tokenizer, pairs, config)
    if not prompts:
        return torch.zeros(layout.d_model, dtype=torch.float64)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        found = mean_activations(model, prompts, only_right=False, **reading)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return function_vector(layout, found.mean_LHK, heads)


def task_prompts(tokenizer: Any, pairs: Sequence[tuple[str, str]], config: FunctionVectorConfig) -> list[Prompt]:
    """Prompts with examples of a task, evenly spaced over its pairs; none where too few can be shown."""
    usable = _lines(pairs)
    if len(usable) <= config.shots:
        return []
    asked = evenly(usable, config.prompts)
    return few_shot_prompts(tokenizer, usable, asked, config.shots, config.seed)


def _lines(pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """The pairs that can stand in a prompt with examples, as single lines."""
    found = {}
    for given, answer in pairs:
        one, other = " ".join(given.split()), " ".join(answer.split())
        if one and other and len(one) + len(other) <= _LONGEST:
            found[one] = Pair(input=one, output=other)
    return list(found.values())


_LONGEST = 600  # characters of a pair that is shown: five of them still fit a short context


def _chosen(config: FunctionVectorConfig, run: TokenRun, model: Any) -> Heads:
    if config.heads is not None:
        layout = layout_of(model)
        wrong = [at for at in config.heads if not (0 <= at[0] < len(layout) and 0 <= at[1] < layout.heads)]
        if wrong:
            raise SettingError(f"heads: {wrong[0]} is none of {len(layout)} layers of {layout.heads} heads")
        return config.heads
    if run.around.find_heads is None:
        raise SettingError("function_vector needs heads: give heads=[[20,5],...], such as `perdure vectors list` shows")
    found = run.around.find_heads(model, run.tokenizer)
    if not found:
        raise RequestError("no head carries any of the known skills in this model; give heads, or leave the term out")
    return found


def _layer(config: FunctionVectorConfig, depth: int) -> int:
    layer = depth // 2 if config.layer is None else config.layer
    if layer >= depth:
        raise SettingError(f"layer: {layer} is none of this model's; it has 0 to {depth - 1}")
    return layer


def _adding(model: Any, theta_D: Tensor, layer: int) -> Callable[[Collated], AbstractContextManager[None]]:
    """Adds the vector where an answer's tokens are predicted, as when the model writes them; not in anchors."""
    block = layout_of(model).blocks[layer]
    theta_D = theta_D.to(bare(model).device)

    def patch(batch: Collated) -> AbstractContextManager[None]:
        predicts_BT = torch.zeros_like(batch.labels_BT, dtype=torch.bool)
        predicts_BT[:, :-1] = batch.labels_BT[:, 1:] != IGNORED
        predicts_BT[batch.anchor_B] = False  # general text is no example of the new task
        return patch_output(block, lambda hidden_BTD: hidden_BTD + predicts_BT[..., None] * theta_D.to(hidden_BTD))

    return patch
