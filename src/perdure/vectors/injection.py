"""Function vectors put back: added to a block's output at the last token, layer by layer, and judged.

Todd et al., "Function Vectors in Large Language Models", ICLR 2024, section 3. Shape suffixes: D hidden size,
B rows, T tokens, L layers tried.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.models import layout_of, patch_output
from perdure.models.head import logits_at
from perdure.models.tokens import batches
from perdure.progress import Progress, silent
from perdure.vectors.last_token import LastToken, Patch
from perdure.vectors.prompts import Prompt


@contextmanager
def injected(model: Any, vector_D: Tensor, layer: int) -> Iterator[None]:
    """While open, the vector is added to what the block gives, at every token that is read.

    For a model that is asked and writes on; `answers_with` adds it at one prompt's last token only, as published.
    """
    block = layout_of(model).blocks[layer]
    with patch_output(block, lambda hidden_BTD: hidden_BTD + vector_D.to(hidden_BTD)):
        yield


def answers_with(
    model: Any, prompts: Sequence[Prompt], patches: Sequence[Patch], progress: Progress = silent
) -> Tensor:
    """Whether each prompt is answered rightly without and with each patch, bool [B, 1 + patches].

    Right is top-1 of the answer's first token. A prompt is read once for all its patches.
    """
    found = []
    for place, prompt in enumerate(prompts):
        progress("prompts with vectors", place, len(prompts))
        run = LastToken(model, Prompt(prompt.ids, prompt.answer[:1]))
        plain = [int(run.chosen_N[0]) == prompt.answer[0]]
        found.append(plain + [choice == prompt.answer[0] for choice in run.choices(patches)])
    progress("prompts with vectors", len(prompts), len(prompts))
    return torch.tensor(found, dtype=torch.bool)


@torch.no_grad()
def answered(model: Any, prompts: Sequence[Prompt], *, tokens: int = 2048) -> list[bool]:
    """Whether the first token of each answer is the most probable one, with whatever the model carries now."""
    right = [False] * len(prompts)
    for batch in batches([prompt.ids for prompt in prompts], tokens=tokens, device=model.device):
        last_B = batch.mask.sum(1) - 1
        rows_B = torch.arange(len(last_B), device=model.device)
        chosen = logits_at(model, rows_B, last_B, use_cache=False, **batch.inputs()).argmax(1).tolist()
        for row, choice in zip(batch.rows, chosen, strict=True):
            right[row] = choice == prompts[row].answer[0]
    return right


def random_like(vector_D: Tensor, seed: int) -> Tensor:
    """A random direction with the same norm: what an injection is held against."""
    drawn_D = torch.randn(vector_D.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scaled_D: Tensor = drawn_D * (vector_D.double().norm() / drawn_D.norm())
    return scaled_D


@dataclass(frozen=True)
class Sweep:
    """How well a vector works at each layer, on prompts kept for that choice.

    Attributes:
        layers: The layers tried.
        shares: Share of prompts answered rightly with the vector added there.
        plain: The same without it.
    """

    layers: tuple[int, ...]
    shares: tuple[float, ...]
    plain: float

    @property
    def best(self) -> int:
        """The layer with the largest share; of equals the middle one, since neighbours do nearly as well."""
        best = [layer for layer, share in zip(self.layers, self.shares, strict=True) if share == max(self.shares)]
        return best[len(best) // 2]


def sweep(
    model: Any, prompts: Sequence[Prompt], vector_D: Tensor, layers: Sequence[int], progress: Progress = silent
) -> Sweep:
    """What the vector does at each of these layers; every prompt is read once."""
    right_BL = answers_with(model, prompts, [Patch(layer, None, vector_D) for layer in layers], progress)
    share_L = right_BL.double().mean(0).tolist()
    return Sweep(tuple(layers), tuple(share_L[1:]), share_L[0])
