"""Drawing the next token. Shape suffixes: B rows, V vocabulary."""

import torch
from torch import Tensor


def most_probable(logits_BV: Tensor) -> Tensor:
    """The ids [B] of the most probable tokens; of several alike, the first."""
    return logits_BV.argmax(1)


def drawn(logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float = 1.0) -> Tensor:
    """Ids [B] drawn from softmax(logits / temperature), cut to its nucleus, by inversion.

    The nucleus (Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020, section 3.1) is the
    smallest set of most probable tokens whose probabilities sum to `top_p` or more. Within it, in falling order, the
    token is the first whose cumulative probability exceeds u times the nucleus's sum: the same u gives the same token.

    Args:
        logits_BV: [B, V].
        uniform_B: [B], numbers u in [0, 1), one for each row.
        temperature: Above 0; towards 0 the most probable token.
        top_p: In (0, 1]; 1 keeps every token.
    """
    probability_BV = torch.softmax(logits_BV.double() / temperature, 1)
    falling_BV, order_BV = probability_BV.sort(dim=1, descending=True, stable=True)
    total_BV = falling_BV.cumsum(1)
    kept_BV = total_BV - falling_BV < top_p  # what stands before a token sums to less: the first is always kept
    nucleus_B = (falling_BV * kept_BV).sum(1)
    goal_B = uniform_B.to(nucleus_B) * nucleus_B
    place_B = (total_BV <= goal_B[:, None]).sum(1).clamp(max=kept_BV.sum(1) - 1)
    return order_BV.gather(1, place_B[:, None])[:, 0]
