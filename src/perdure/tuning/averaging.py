"""Averaging with the weights of before: how much of the old weights to keep, and how to average.

After Qiao et al., "Large Continual Instruction Assistant" (LCIA), ICML 2025, arXiv 2410.10868: the weights become
θ* = β θ_old + (1 − β) θ. With δ = θ − θ_old the new task's loss along that segment is, to second order at θ,
L(θ) − β g·δ + β²/2 δᵀHδ (g its gradient at θ, H its curvature), and staying near the old weights costs
μ/2 (1 − β)² δᵀMδ. The share β here is where their sum is least. Where θ is the parent plus a low-rank change of its
own, averaging with the parent by β is that change times 1 − β.

Shape suffixes: K groups of tensors (such as layers).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from perdure.deltas import Change, LowRank, decompose
from perdure.errors import EditError, SettingError

_SINGULAR = 1e-10  # of the largest term: below this, a curvature is zero in float64
_PUBLISHED_FALLBACK = 0.99
_GOLDEN = (math.sqrt(5) - 1) / 2


def sound_share(slope: float, curvature: float, drift: float, strength: float) -> float | None:
    """The share β of the old weights that is best for new loss and stability together; None if none can be told.

    β* = clip₀₁[(g·δ + μ δᵀMδ) / (δᵀHδ + μ δᵀMδ)]. It is the exact minimum on [0, 1] where the loss is quadratic.
    The published form is `published_share`.

    Args:
        slope: g·δ, the new task's gradient at the trained weights times the step.
        curvature: δᵀHδ, from two gradients on the same batch or a Hessian-vector product.
        drift: δᵀMδ, with M the old task's curvature (its diagonal Fisher), or `isotropic_drift`.
        strength: μ, the weight of stability.

    Returns:
        β. 0 (keep the trained weights) where nothing moved: then any β gives the same. None where the denominator
        is not positive, so that the quadratic has no least point: take `line_search`.

    Raises:
        SettingError: A negative strength.
        EditError: Numbers that are not finite.
    """
    _check(strength, torch.tensor([slope, curvature, drift]))
    if slope == curvature == drift == 0:
        return 0.0
    numerator, denominator = slope + strength * drift, curvature + strength * drift
    if denominator <= _SINGULAR * max(abs(slope), abs(curvature), strength * abs(drift)):
        return None
    return min(1.0, max(0.0, numerator / denominator))


def sound_shares(slope_K: Tensor, curvature_KK: Tensor, drift_KK: Tensor, strength: float) -> Tensor | None:
    """The best share of the old weights for each group of tensors, [K] float64; None if none can be told.

    With one β for each group, δ_k the step of group k and zero elsewhere: the least ½ βᵀAβ − rᵀβ with 0 ≤ β ≤ 1,
    A_kl = δ_kᵀ(H + μM)δ_l and r_k = g·δ_k + μ Σ_l δ_kᵀMδ_l, found exactly by an active set (BVLS). Where A is
    singular, and the answer therefore not unique, the one that keeps most of the trained weights is given.

    Args:
        slope_K: g·δ_k.
        curvature_KK: δ_kᵀHδ_l; its symmetric part is used, as difference quotients are not quite symmetric.
        drift_KK: δ_kᵀMδ_l, diagonal where M is.
        strength: μ, the weight of stability.

    Returns:
        β, with 0 for groups that did not move. None where A bends down somewhere, or is flat where r is not.

    Raises:
        SettingError: A negative strength, or shapes that do not fit.
        EditError: Numbers that are not finite.
    """
    slope, curvature, drift = slope_K.detach().cpu().double(), _symmetric(curvature_KK), _symmetric(drift_KK)
    if not curvature.shape == drift.shape == (len(slope), len(slope)):
        raise SettingError(f"{len(slope)} slopes need square curvature and drift of that size")
    _check(strength, slope, curvature, drift)
    total_KK, right_K = curvature + strength * drift, slope + strength * drift.sum(1)
    moved_K = (curvature != 0).any(1) | (drift != 0).any(1) | (slope != 0)
    shares_K = torch.zeros_like(slope)
    if not moved_K.any():
        return shares_K
    found = _least_in_box(total_KK[moved_K][:, moved_K], right_K[moved_K])
    if found is None:
        return None
    shares_K[moved_K] = found
    return shares_K


def _least_in_box(total_KK: Tensor, right_K: Tensor) -> Tensor | None:
    """The least ½ βᵀAβ − rᵀβ in the unit box, in units in which A has a diagonal of ones."""
    diagonal_K = total_KK.diagonal()
    if (diagonal_K <= 0).any():
        return None
    unit_K = diagonal_K.sqrt()
    scaled_KK, scaled_K = total_KK / torch.outer(unit_K, unit_K), right_K / unit_K
    values_K, vectors_KK = torch.linalg.eigh(scaled_KK)
    flat_K = values_K < _SINGULAR * values_K[-1]
    beyond = torch.linalg.vector_norm(vectors_KK[:, flat_K].T @ scaled_K)
    uncertain = math.sqrt(_SINGULAR) * torch.linalg.vector_norm(scaled_K)
    if values_K[0] < -_SINGULAR * values_K[-1] or beyond > uncertain:
        return None
    values_K = torch.where(flat_K, _SINGULAR * values_K[-1], values_K)
    root_KK = values_K.sqrt()[:, None] * vectors_KK.T
    target_K = (vectors_KK.T @ scaled_K).masked_fill(flat_K, 0.0) / values_K.sqrt()
    limit = unit_K.numpy()
    solved = lsq_linear(root_KK.numpy(), target_K.numpy(), (0 * limit, limit), "bvls", tol=1e-14, max_iter=1000)
    shares_K = torch.from_numpy(solved.x / limit)
    ends_K = shares_K.round().clamp(0.0, 1.0)  # the solver leaves a rounding error beside a bound
    return torch.where((shares_K - ends_K).abs() < _SINGULAR, ends_K, shares_K)


def isotropic_drift(curvature_KK: Tensor, squares_K: Tensor) -> Tensor:
    """δ_kᵀMδ_l [K, K] for M = c·I, where nothing of the old task was kept to weigh its weights by.

    c = |δᵀHδ| / δᵀδ over all groups together, the new task's own curvature along the step. M then has the unit of a
    curvature, so β does not change with the unit of the loss or of the weights, nor when a tensor is there twice,
    and μ is a plain number: with one group and g = 0, β = μ / (1 + μ).

    Args:
        curvature_KK: δ_kᵀHδ_l.
        squares_K: δ_kᵀδ_k.
    """
    squares = squares_K.double()
    total = float(squares.sum())
    scale = abs(float(curvature_KK.double().sum())) / total if total else 0.0
    return torch.diag(scale * squares)


def line_search(
    loss: Callable[[float], float], *, drift: float = 0.0, strength: float = 1.0, points: int = 5, steps: int = 8
) -> float:
    """The share β in [0, 1] with the least new loss + μ/2 (1 − β)² δᵀMδ, by evaluations alone.

    For losses of no positive curvature. An even grid finds the lowest piece, a golden section narrows it by 0.618 a
    step; given is the best point that was evaluated, the smallest of equals. Cost: `points` + `steps` + 1 losses.

    Args:
        loss: From β to the new task's loss at β θ_old + (1 − β) θ, on the same batch each time.
        drift: δᵀMδ.
        strength: μ.
        points: Points of the grid, with both ends.
        steps: Steps of the golden section.

    Raises:
        SettingError: A negative strength or drift, fewer than two points, or negative steps.
        EditError: The loss is finite nowhere on the grid.
    """
    if points < 2 or steps < 0 or drift < 0 or strength < 0:
        raise SettingError("a line search needs at least two points, and no negative steps, drift or strength")
    known: dict[float, float] = {}

    def height(share: float) -> float:
        if share not in known:
            value = float(loss(share)) + strength / 2 * (1 - share) ** 2 * drift
            known[share] = value if math.isfinite(value) else math.inf
        return known[share]

    grid = [index / (points - 1) for index in range(points)]
    place = min(range(points), key=lambda index: height(grid[index]))
    if math.isinf(height(grid[place])):
        raise EditError("the loss is finite nowhere between the old and the trained weights; train with smaller steps")
    _narrow(height, grid[max(0, place - 1)], grid[min(points - 1, place + 1)], steps)
    return min(sorted(known), key=lambda share: known[share])


def _narrow(height: Callable[[float], float], low: float, high: float, steps: int) -> None:
    """Evaluate a golden section of [low, high]."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    for _ in range(steps):
        if height(left) <= height(right):
            high, left, right = right, right - _GOLDEN * (right - low), left
        else:
            low, left, right = left, right, left + _GOLDEN * (high - left)


def published_share(
    gradient: Tensor, previous_gradient: Tensor, theta: Tensor, previous_theta: Tensor, average: Tensor
) -> float:
    """LCIA's share of the old average for one tensor, for comparison; 0.99 where it lies outside (0, 1).

    β = (L′(θ_t) + 1) / ((θ_t − θ*_{t−1}) L″(θ_t)) with L″ = (L′(θ_t) − L′(θ_{t−1})) / (θ_t − θ_{t−1}), every factor
    by its L1 norm. The 1 has no unit: β changes with the unit of the loss, of the weights, and with the size of the
    tensor. `sound_share` is the form without that.

    Args:
        gradient: L′(θ_t), of any shape.
        previous_gradient: L′(θ_{t−1}).
        theta: θ_t, the trained tensor.
        previous_theta: θ_{t−1}, one step before.
        average: θ*_{t−1}, the average so far.
    """
    bend = _length(gradient, previous_gradient) * _length(theta, average)
    move = _length(theta, previous_theta)
    share = (_length(gradient) + 1) * move / bend if bend > 0 else math.inf
    return share if 0 < share < 1 else _PUBLISHED_FALLBACK


class Shadow:
    """A running average of named tensors, kept in float32 whatever the tensors are.

    In bfloat16 the average stalls: its steps are smaller than half of what its last digit is worth.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._average = {name: value.detach().to(torch.float32, copy=True) for name, value in tensors.items()}

    @classmethod
    def resumed(cls, state: Mapping[str, Tensor]) -> "Shadow":
        """The shadow with the averages of `state()`."""
        return cls(state)

    def update(self, tensors: Mapping[str, Tensor], share: float) -> None:
        """Average in place: share · average + (1 − share) · tensor.

        Raises:
            SettingError: Other names or shapes than at the start, or a share outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise SettingError(f"the share of the average must lie in [0, 1]; given {share}")
        if {name: value.shape for name, value in tensors.items()} != {
            name: value.shape for name, value in self._average.items()
        }:
            raise SettingError("the tensors to average differ in names or shapes from those at the start")
        for name, average in self._average.items():
            average.lerp_(tensors[name].detach().to(average), 1 - share)

    def state(self) -> dict[str, Tensor]:
        """A copy of the averages, float32: all that is needed to go on."""
        return {name: value.clone() for name, value in self._average.items()}


@dataclass(frozen=True)
class Refactored:
    """A change in fewer factors.

    Attributes:
        change: The nearest change of the rank asked for, by the Frobenius norm.
        error: Its relative distance ‖kept − whole‖ / ‖whole‖; 0 where nothing was lost.
    """

    change: LowRank
    error: float


def refactored(change: LowRank, rank: int) -> Refactored:
    """The nearest change of at most `rank`, as factors of equal weight (left √σ, √σ right), with what was lost.

    QR of both factors, then the SVD of the small middle (Eckart and Young, Psychometrika 1, 1936): nothing of the
    size of the matrix is formed while the factors have fewer columns than it.

    Raises:
        SettingError: A rank below one.
    """
    if rank < 1:
        raise SettingError(f"the rank must be at least 1; given {rank}")
    left_OK, values_K, right_KI = decompose(Change(change))
    whole, lost = (float(torch.linalg.vector_norm(part)) for part in (values_K, values_K[rank:]))
    root_K = values_K[:rank].sqrt()
    left, right = left_OK[:, :rank] * root_K, root_K[:, None] * right_KI[:rank]
    kept = LowRank(left.float().contiguous(), right.float().contiguous())
    return Refactored(kept, lost / whole if whole else 0.0)


def average_products(old: LowRank, new: LowRank, share: float, rank: int) -> Refactored:
    """The change share · old + (1 − share) · new, averaged as products and brought back to `rank`.

    The factors themselves are never averaged: (βB + (1 − β)B′)(βA + (1 − β)A′) is not βBA + (1 − β)B′A′, and
    would change with how each product happens to be split into factors.

    Raises:
        SettingError: Shapes that differ, a rank below one, or a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise SettingError(f"the share of the old change must lie in [0, 1]; given {share}")
    total = Change(old) * share + Change(new) * (1 - share)
    assert total.low_rank is not None
    return refactored(total.low_rank, rank)


def _check(strength: float, *numbers: Tensor) -> None:
    if not 0 <= strength < math.inf:
        raise SettingError(f"the strength of stability must be a finite number of at least 0; given {strength}")
    if not all(torch.isfinite(number).all() for number in numbers):
        raise EditError("the slope, curvature or drift of the step is not finite; train with smaller steps")


def _symmetric(matrix_KK: Tensor) -> Tensor:
    wide = matrix_KK.detach().cpu().double()
    return (wide + wide.T) / 2


def _length(first: Tensor, second: Tensor | None = None) -> float:
    """The L1 norm of a tensor, or of the difference of two."""
    difference = first.double() if second is None else first.double() - second.double()
    return float(difference.abs().sum())
