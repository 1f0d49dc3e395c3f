"""How far a model's next-token distributions have moved from those of another, on any text: no labels needed.

Shape suffixes: N positions, V vocabulary, K most probable tokens kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.models.head import logits_at
from perdure.models.tokens import batches

_KEPT = 256
_BATCH_TOKENS = 512  # logits of every token are held: 100 MB at 50,000 words


@dataclass(frozen=True)
class Distributions:
    """Next-token distributions at every position of some texts, as far as they are worth keeping.

    Attributes:
        rows: The texts' tokens.
        tokens: The most probable tokens [N, K] of each position, text by text.
        log_probs: Their log-probabilities [N, K].
    """

    rows: tuple[tuple[int, ...], ...]
    tokens: Tensor
    log_probs: Tensor


def distributions(model: Any, rows: Sequence[Sequence[int]], *, kept: int = _KEPT) -> Distributions:
    """The distributions of a model after every token of the texts, 256 tokens of each: 2 kB a position."""
    found = [logits.log_softmax(1).topk(min(kept, logits.shape[1]), 1) for logits in _logits(model, rows)]
    tokens_NK = torch.cat([part.indices.cpu() for part in found])
    return Distributions(tuple(map(tuple, rows)), tokens_NK, torch.cat([part.values.cpu() for part in found]))


def mean_divergence(model: Any, original: Distributions) -> float:
    """The mean over positions of KL(original ‖ model), in nats."""
    total, start = 0.0, 0
    for logits_NV in _logits(model, original.rows):
        stop = start + len(logits_NV)
        tokens_NK = original.tokens[start:stop].to(logits_NV.device)
        chosen_NK = logits_NV.log_softmax(1).gather(1, tokens_NK)  # the rest, 600 kB a token, stays on the device
        total += float(divergence(original.log_probs[start:stop], chosen_NK.cpu()).sum())
        start = stop
    return total / max(1, start)


def divergence(log_probs_NK: Tensor, other_NK: Tensor) -> Tensor:
    """KL(p ‖ q) [N] over K tokens and the rest as one more outcome: a lower bound of the whole, exact for K = V.

    Joining outcomes never raises a divergence (Cover and Thomas, Elements of Information Theory, 2.7.1).

    Args:
        log_probs_NK: Log-probabilities of p, float32 or wider.
        other_NK: Those of q for the same tokens.
    """
    p_NK, q_NK = log_probs_NK.double(), other_NK.double()
    kept_N = (p_NK.exp() * (p_NK - q_NK)).sum(1)
    rest_p, rest_q = ((1 - part.exp().sum(1)).clamp(min=1e-12) for part in (p_NK, q_NK))
    return kept_N + rest_p * (rest_p.log() - rest_q.log())


def _logits(model: Any, rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """The logits [N, V] after every token, batch by batch, in an order that depends on the rows' lengths alone."""
    for batch in batches(rows, tokens=_BATCH_TOKENS, device=model.device):
        lines_N, columns_N = batch.mask.nonzero(as_tuple=True)
        with torch.no_grad():
            yield logits_at(model, lines_N, columns_N, use_cache=False, **batch.inputs())
