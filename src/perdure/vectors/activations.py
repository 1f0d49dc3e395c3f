"""What the heads do on average while a task is carried out.

Shape suffixes: L layers, H query heads, K head size, B rows, T tokens, I inputs of the output projection, N answer
tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.models import Layout, capture, layout_of
from perdure.models.head import head_is_plain, logits_at
from perdure.models.tokens import batches
from perdure.progress import Progress, silent
from perdure.vectors.last_token import Scored
from perdure.vectors.prompts import Prompt

_CPU_TOKENS, _GPU_TOKENS = 1024, 16384


@dataclass(frozen=True)
class Activations:
    """Heads at the last prompt token, over prompts.

    Attributes:
        mean_LHK: The mean over the prompts that were answered rightly, or over all, float32; zeros where none was.
        right: Whether each prompt was answered rightly.
    """

    mean_LHK: Tensor
    right: tuple[bool, ...]


@torch.no_grad()
def mean_activations(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    scored: Scored = "first",
    only_right: bool = True,
    progress: Progress = silent,
) -> Activations:
    """The mean activation of every head over the prompts whose answer the model ranks first.

    Todd et al. 2024, equation 2. A head's activation is its slice of the input of the attention's output
    projection, at the last token of the prompt. "Answered" means that the first answer token, or with `answer` each
    of them (teacher-forced), is the most probable one.
    """
    layout, right = layout_of(model), [False] * len(prompts)
    head_is_plain(model)  # looked at once, before anything is watched
    total_LI = torch.zeros(len(layout), layout.attention_out[0].d_in, dtype=torch.float64)
    tokens = _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS
    done = 0
    for batch in batches([prompt.read for prompt in prompts], tokens=tokens, device=model.device):
        progress("activations of heads", done, len(prompts))
        chosen = [prompts[row] for row in batch.rows]
        last_B = torch.tensor([len(prompt.ids) - 1 for prompt in chosen], device=model.device)
        hits, heads_LBI = _read(model, layout, chosen, last_B, batch.inputs(), scored=scored)
        for row, hit in zip(batch.rows, hits, strict=True):
            right[row] = hit
        counted = torch.tensor(hits) if only_right else torch.ones(len(hits), dtype=torch.bool)
        total_LI += heads_LBI[:, counted].double().sum(1)
        done += len(chosen)
    progress("activations of heads", len(prompts), len(prompts))
    mean_LI = total_LI / max(1, sum(right) if only_right else len(prompts))
    return Activations(mean_LI.float().reshape(len(layout), layout.heads, layout.head_dim), tuple(right))


def _read(
    model: Any, layout: Layout, prompts: Sequence[Prompt], last_B: Tensor, inputs: dict[str, Tensor], *, scored: Scored
) -> tuple[list[bool], Tensor]:
    """Whether each prompt of a batch was answered rightly, and all heads' activations [L, B, I], on the CPU."""
    rows_B = torch.arange(len(prompts), device=model.device)
    lengths = [1 if scored == "first" else len(prompt.answer) for prompt in prompts]
    length_B = torch.tensor(lengths, device=model.device)
    rows_N = rows_B.repeat_interleave(length_B)
    columns_N = torch.cat(
        [torch.arange(count, device=model.device) + at for at, count in zip(last_B, lengths, strict=True)]
    )
    logits: list[Tensor] = []
    seen = capture(
        lambda: logits.append(logits_at(model, rows_N, columns_N, use_cache=False, **inputs)),
        inputs={layer: part.module for layer, part in enumerate(layout.attention_out)},
        whole=True,
        keep=lambda read_BTI: read_BTI[rows_B, last_B],
    )
    wanted = [token for prompt, count in zip(prompts, lengths, strict=True) for token in prompt.answer[:count]]
    hit_N = torch.split(logits[0].argmax(1).cpu() == torch.tensor(wanted), lengths)
    heads_LBI = torch.stack([seen[layer] for layer in range(len(layout))]).float().cpu()
    return [bool(hits.all()) for hits in hit_N], heads_LBI


def head_outputs(layout: Layout, layer: int, heads_HK: Tensor) -> Tensor:
    """What each head of a layer writes into the hidden state, [H, D] float64: W_O[:, h] h, without any bias."""
    weight_DHK = layout.attention_out[layer].matrix.double().reshape(layout.d_model, layout.heads, layout.head_dim)
    return torch.einsum("dhk,hk->hd", weight_DHK, heads_HK.to(weight_DHK))


def function_vector(layout: Layout, mean_LHK: Tensor, heads: Sequence[tuple[int, int]]) -> Tensor:
    """The function vector θ, [D], float64: what the chosen heads write on average, summed.

    Todd et al. 2024, equation 5: θ = Σ_(l,h)∈S W_O,l[:, h] h̄_lh. A bias of an output projection is added once for each
    layer in S; the published code adds it once a head.

    Args:
        layout: The model's layout.
        mean_LHK: Mean activations of the heads.
        heads: S, pairs of layer and head.
    """
    theta_D = torch.zeros(layout.d_model, dtype=torch.float64, device=layout.attention_out[0].module.weight.device)
    for layer in sorted({layer for layer, _ in heads}):
        chosen = [head for at, head in heads if at == layer]
        theta_D += head_outputs(layout, layer, mean_LHK[layer])[chosen].sum(0)
        bias = getattr(layout.attention_out[layer].module, "bias", None)
        theta_D += 0 if bias is None else bias.detach().double()
    return theta_D.cpu()
