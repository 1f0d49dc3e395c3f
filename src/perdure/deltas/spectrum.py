"""Singular values of weights and of deltas, by the cheapest exact route.

Shape suffixes: O rows, I columns, R rank, K number of values asked for.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.deltas.delta import Change, LowRank
from perdure.errors import EditError


@dataclass(frozen=True)
class Extremes:
    """The largest and the smallest singular value of a matrix."""

    largest: float
    smallest: float

    @property
    def condition(self) -> float:
        """The condition number κ = σ_max / σ_min; infinite for a singular matrix."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf


def extremes(weight_OI: Tensor) -> Extremes:
    """σ_max and σ_min of a matrix, from the eigenvalues of its smaller Gram matrix in float64.

    Cost: one product of min(O, I)² · max(O, I) multiply-adds and one `eigvalsh` of the smaller side; at
    4096 × 11008 about 2 · 10¹¹ of each. Squaring costs digits: relative error of σ_min is about κ² · 1e-16.
    """
    values = torch.linalg.eigvalsh(_gram(weight_OI)).clamp(min=0)
    return Extremes(float(values[-1].sqrt()), float(values[0].sqrt()))


def largest_singular_value(weight_OI: Tensor, *, tolerance: float = 1e-9, limit: int = 500) -> float:
    """σ_max of a matrix by block power iteration with Rayleigh-Ritz values, in float64.

    Each step costs two products with 8 columns: about a thousandth of a full decomposition at 4096 × 11008.

    Raises:
        EditError: No convergence to `tolerance` (relative) within `limit` steps.
    """
    matrix = weight_OI.double()
    generator = torch.Generator(device="cpu").manual_seed(0)
    start = torch.randn(matrix.shape[1], min(8, *matrix.shape), generator=generator, dtype=torch.float64)
    block_IK = torch.linalg.qr(start.to(matrix.device))[0]
    before = 0.0
    for _ in range(limit):
        image_OK = matrix @ block_IK
        value = float(torch.linalg.matrix_norm(torch.linalg.qr(image_OK)[1], ord=2))
        if value == 0.0 or abs(value - before) <= tolerance * value:
            return value
        before = value
        block_IK = torch.linalg.qr(matrix.T @ image_OK)[0]
    raise EditError(f"the largest singular value of a {tuple(matrix.shape)} matrix did not converge in {limit} steps")


def decompose(change: Change, *, above: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition U [O, K], s [K] (descending), Vᵀ [K, I] of a change, float64.

    Only values larger than `above` are given, and only their vectors are formed. For factors A Bᵀ with
    R < min(O, I): QR of both, then the SVD of the R × R product of the triangles, so that nothing of the size of
    the matrix is formed. Otherwise through `eigh` of the smaller Gram matrix.
    """
    low_rank = change.low_rank
    if change.is_low_rank and low_rank is not None and low_rank.rank < min(change.shape):
        basis_OR, left_RR = torch.linalg.qr(low_rank.left.double())
        basis_IR, right_RR = torch.linalg.qr(low_rank.right.double().T)
        inner_left, values, inner_right = torch.linalg.svd(left_RR @ right_RR.T)
        kept = values > above if above else slice(None)
        return basis_OR @ inner_left[:, kept], values[kept], inner_right[kept] @ basis_IR.T
    left, values, right = _decompose_dense(change.value())
    kept = values > above if above else slice(None)
    return left[:, kept], values[kept], right[kept]


def singular_values(change: Change) -> Tensor:
    """The singular values of a change, descending, float64 [K]."""
    low_rank = change.low_rank
    if change.is_low_rank and low_rank is not None and low_rank.rank < min(change.shape):
        left_RR = torch.linalg.qr(low_rank.left.double(), mode="r")[1]
        right_RR = torch.linalg.qr(low_rank.right.double().T, mode="r")[1]
        inner: Tensor = torch.linalg.svdvals(left_RR @ right_RR.T)
        return inner
    values: Tensor = torch.linalg.eigvalsh(_gram(change.value())).clamp(min=0).sqrt().flip(0)
    return values


def compress(change: Change, *, tolerance: float = 1e-7) -> Change:
    """The same low-rank change in as few factors as it needs: values below `tolerance` · σ_max are dropped."""
    if not change.is_low_rank:
        return change
    left_OK, values_K, right_KI = decompose(change)
    kept = values_K > tolerance * values_K[:1]
    root_K = values_K[kept].sqrt()
    left, right = left_OK[:, kept] * root_K, root_K[:, None] * right_KI[kept]
    return Change(LowRank(left.float().contiguous(), right.float().contiguous()))


def _gram(matrix: Tensor) -> Tensor:
    wide = matrix.double()
    return wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide


def _decompose_dense(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if matrix.shape[0] > matrix.shape[1]:
        left, values, right = _decompose_dense(matrix.T)
        return right.T, values, left.T
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values, left = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    safe = values.clamp(min=torch.finfo(torch.float64).tiny)
    return left, values, (left.T @ matrix) / safe[:, None]
