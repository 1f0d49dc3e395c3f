"""Which heads carry a task: the indirect effect of every attention head.

Todd et al., "Function Vectors in Large Language Models", ICLR 2024, section 2.3, equations 3 and 4. On a prompt
whose shown pairs were shuffled, one head's activation at the last token is replaced by its mean over intact
prompts; the effect is what that does to the right answer. By attribution (Nanda 2023; Kramár et al., "AtP*",
2024) one backward pass estimates all heads at once, and only the most promising ones are then run.

Shape suffixes: L layers, H query heads, K head size, B prompts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.errors import SettingError
from perdure.models import layout_of, patch_input
from perdure.models.head import logits_at
from perdure.progress import Progress, silent
from perdure.vectors.last_token import LastToken, Patch, Scored, scores_of
from perdure.vectors.prompts import Prompt


def indirect_effects(
    model: Any,
    prompts: Sequence[Prompt],
    mean_LHK: Tensor,
    *,
    scored: Scored = "first",
    prefilter: int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """The effect of every head on every prompt, [B, L, H], float64.

    Args:
        model: A causal language model in evaluation mode.
        prompts: Prompts that do not say what to do (shuffled ones).
        mean_LHK: Each head's mean activation over intact prompts.
        scored: p of the answer's first token, or log p of the whole answer.
        prefilter: Run only this many heads, those with the largest mean attribution over the prompts; the others
            have their attribution instead. All heads are run when not given.
        progress: Told how many prompts are done.
    """
    runs = []
    for place, prompt in enumerate(prompts):
        progress("prompts read", place, len(prompts))
        runs.append(LastToken(model, prompt))
    return effects_of(runs, mean_LHK, scored=scored, prefilter=prefilter, progress=progress)


def effects_of(
    runs: Sequence[LastToken],
    mean_LHK: Tensor,
    *,
    scored: Scored = "first",
    prefilter: int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """As `indirect_effects`, on prompts that were read already."""
    if prefilter is not None and prefilter < 1:
        raise SettingError(f"prefilter is {prefilter}; at least 1 head is run, or all without it")
    mean_LHK = mean_LHK.to(runs[0].head_LHK.device)
    if prefilter is None or prefilter >= mean_LHK.shape[:2].numel():
        chosen, effect_BLH = _all(mean_LHK), torch.zeros(len(runs), *mean_LHK.shape[:2], dtype=torch.float64)
    else:
        effect_BLH = torch.stack([attributed(run, mean_LHK, scored).double().cpu() for run in runs])
        chosen = strongest(effect_BLH.mean(0), prefilter)
    layers, heads = [layer for layer, _ in chosen], [head for _, head in chosen]
    for place, run in enumerate(runs):
        progress("effects of heads", place, len(runs))
        effect_BLH[place, layers, heads] = _exact(run, chosen, mean_LHK, scored)
    progress("effects of heads", len(runs), len(runs))
    return effect_BLH


def strongest(effect_LH: Tensor, count: int) -> list[tuple[int, int]]:
    """The `count` heads (layer, head) with the largest effect, the largest first; equals in their order."""
    order = effect_LH.flatten().argsort(descending=True, stable=True)[:count]
    return [divmod(int(place), effect_LH.shape[1]) for place in order]


def attributed(run: LastToken, mean_LHK: Tensor, scored: Scored = "first") -> Tensor:
    """Every head's effect to first order, [L, H]: Σ_k (h̄ − h) ∂score/∂h."""
    return ((mean_LHK.to(run.head_LHK) - run.head_LHK) * run.gradient(scored)).sum(2)


@torch.no_grad()
def naive_effects(model: Any, prompts: Sequence[Prompt], mean_LHK: Tensor, *, scored: Scored = "first") -> Tensor:
    """As `indirect_effects`, by one whole forward pass for each head: what the fast routes are checked against."""
    effect_BLH = torch.zeros(len(prompts), *mean_LHK.shape[:2], dtype=torch.float64)
    for place, prompt in enumerate(prompts):
        plain = _scored(model, prompt, scored)
        for layer, head in _all(mean_LHK):
            module = layout_of(model).attention_out[layer].module
            with patch_input(module, _one_head(len(prompt.ids) - 1, head, mean_LHK[layer, head])):
                effect_BLH[place, layer, head] = _scored(model, prompt, scored) - plain
    return effect_BLH


def _one_head(column: int, head: int, value_K: Tensor) -> Callable[[Tensor], Tensor]:
    size = len(value_K)

    def change(read_BTI: Tensor) -> Tensor:
        patched_BTI = read_BTI.clone()
        patched_BTI[:, column, head * size : (head + 1) * size] = value_K.to(read_BTI)
        return patched_BTI

    return change


def _exact(run: LastToken, heads: Sequence[tuple[int, int]], mean_LHK: Tensor, scored: Scored) -> Tensor:
    patches = [Patch(layer, head, mean_LHK[layer, head]) for layer, head in heads]
    return (scores_of(run.log_probs(patches), scored) - scores_of(run.log_prob_N[None], scored).cpu()).cpu()


def _all(mean_LHK: Tensor) -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(mean_LHK.shape[0]) for head in range(mean_LHK.shape[1])]


def _scored(model: Any, prompt: Prompt, scored: Scored) -> float:
    ids_1T = torch.tensor([prompt.read], device=model.device)
    place_N = torch.arange(len(prompt.ids) - 1, len(prompt.read), device=model.device)
    logits_NV = logits_at(model, torch.zeros_like(place_N), place_N, input_ids=ids_1T, use_cache=False)
    answer_N = torch.tensor(prompt.answer, device=model.device)
    log_prob_N = logits_NV.log_softmax(1).gather(1, answer_N[:, None])[:, 0]
    return float(scores_of(log_prob_N[None], scored)[0])
