"""The closed forms of locate-and-edit methods, as functions of tensors.

Shape suffixes: O outputs and I inputs of a projection, N facts, M earlier keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from perdure.editing.statistics import SecondMoment
from perdure.errors import EditError

Solve = Callable[[Tensor], Tensor]


def rome_update(weight_OI: Tensor, key_I: Tensor, value_O: Tensor, direction_I: Tensor) -> tuple[Tensor, Tensor]:
    """The rank-one factors left [O, 1], right [1, I] with (W + left right) k = v*.

    ROME, equation 2: ΔW = (v* − W k) uᵀ / (uᵀ k) with u = C⁻¹ k. Of all ΔW that set k to v*, this one
    changes the outputs over the text least, tr(ΔW C ΔWᵀ). The same k is used throughout.

    Raises:
        EditError: uᵀk is not positive: C is not positive definite or the key is zero.
    """
    scale = float(direction_I @ key_I)
    if not scale > 0:
        raise EditError(f"uᵀk is {scale}, it must be positive; the second moment does not fit this key")
    return (value_O - weight_OI @ key_I)[:, None], (direction_I / scale)[None]


def memit_update(residual_ON: Tensor, key_IN: Tensor, solve: Solve) -> tuple[Tensor, Tensor]:
    """The factors left [O, N], right [N, I] of ΔW = R Kᵀ (A + K Kᵀ)⁻¹.

    MEMIT, equation 14, with A = λC + K_p K_pᵀ (the keys of earlier batches), by the push-through form of
    the Woodbury identity: (A + K Kᵀ)⁻¹ K = A⁻¹K (1 + Kᵀ A⁻¹ K)⁻¹, an N × N solve.

    Args:
        residual_ON: R, what the outputs lack.
        key_IN: K.
        solve: X ↦ A⁻¹ X.
    """
    solved_IN = solve(key_IN)
    inner_NN = torch.eye(key_IN.shape[1], dtype=key_IN.dtype) + key_IN.T @ solved_IN
    right_IN = torch.linalg.solve(inner_NN, solved_IN, left=False)
    return residual_ON, right_IN.T


def protect(moment: SecondMoment, weight: float, previous_IM: Tensor | None) -> Solve:
    """X ↦ (λC + K_p K_pᵀ)⁻¹ X, in float64.

    C is factored once. Few earlier keys enter through the Woodbury identity; once they are more than a
    quarter of the inputs, the sum is factored instead.

    Args:
        moment: C.
        weight: λ, in tokens: how many average tokens an edit must leave in place.
        previous_IM: K_p, the keys of earlier edits.
    """

    def plain(right_IN: Tensor) -> Tensor:
        return moment.solve(right_IN) / weight

    if previous_IM is None or previous_IM.shape[1] == 0:
        return plain
    previous = previous_IM.double()
    size, count = previous.shape
    if count > size // 4:
        factor_II = torch.linalg.cholesky(weight * moment.ridged + previous @ previous.T)
        return lambda right_IN: torch.cholesky_solve(right_IN, factor_II)
    solved_IM = plain(previous)
    inner_MM = torch.eye(count, dtype=torch.float64) + previous.T @ solved_IM
    factor_MM = torch.linalg.cholesky(inner_MM)

    def with_previous(right_IN: Tensor) -> Tensor:
        base_IN = plain(right_IN)
        inner: Tensor = torch.cholesky_solve(previous.T @ base_IN, factor_MM)
        return base_IN - solved_IM @ inner

    return with_previous
