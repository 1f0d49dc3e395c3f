"""What an update did to a function: how far its vector, its heads and their ranking moved.

Jiang et al., "Unlocking the Power of Function Vectors for Characterizing and Mitigating Catastrophic Forgetting in
Continual Instruction Tuning", ICLR 2025, section 3. Pure functions of tensors. Shape suffixes: L layers, H query heads,
K head size, D hidden size.
"""

import torch
from torch import Tensor

_EPSILON = torch.finfo(torch.float64).tiny


def similarity(first_D: Tensor, second_D: Tensor) -> float:
    """The cosine of two vectors; 0 where one of them is zero."""
    first_D, second_D = first_D.double(), second_D.double()
    norm = (first_D.norm() * second_D.norm()).clamp(min=_EPSILON)
    return float((first_D @ second_D / norm).clamp(-1, 1))


def activation_shift(before_LHK: Tensor, after_LHK: Tensor) -> Tensor:
    """How far each head's mean activation moved, in its own length: ‖h̄_after − h̄_before‖ / ‖h̄_before‖, [L, H]."""
    before_LHK = before_LHK.double()
    moved_LH = (after_LHK.double() - before_LHK).norm(dim=2)
    shift_LH: Tensor = moved_LH / before_LHK.norm(dim=2).clamp(min=_EPSILON)
    return shift_LH


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's ρ of two lists of numbers, equals sharing their mean rank; 0 where one list is constant."""
    ranks = [_ranks(values.flatten().double()) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    return similarity(centred[0], centred[1])


def _ranks(values: Tensor) -> Tensor:
    _, group, count = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count.double() - 1) / 2)[group]
    return ranks
