"""The closed forms of locate-and-edit methods, as functions of tensors.

Shape suffixes: O outputs and I inputs of a projection, N facts, M earlier keys, J = N + M, R directions of a
null space.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from perdure.editing.statistics import Eigenbasis, SecondMoment
from perdure.errors import EditError, SettingError

_SAME = 0.99
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


def unlike(previous_IM: Tensor | None, key_IN: Tensor, coordinates: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The earlier keys without those that are one of the new keys over again: a cosine above 0.99.

    Where a fact is written at the site of an earlier one, the new target value says what the outputs shall be at
    this key. Protected as well, the old key would hold them back, the more so the more often a fact is changed.

    Args:
        previous_IM: K_p, the keys of earlier edits.
        key_IN: K.
        coordinates: From keys to what their cosines are taken of.
    """
    if previous_IM is None or previous_IM.shape[1] == 0:
        return previous_IM
    old_CM, new_CN = (normalize(coordinates(keys.double()), dim=0) for keys in (previous_IM, key_IN))
    nearest_M = (new_CN.T @ old_CM).abs().amax(0)
    return previous_IM[:, nearest_M <= _SAME]


def protect(moment: SecondMoment, weight: float, previous_IM: Tensor | None) -> Solve:
    """X ↦ (λC + K_p K_pᵀ)⁻¹ X, in float64.

    C is factored once. Few earlier keys enter through the Woodbury identity; once they are more than a
    quarter of the inputs, the sum is factored instead.

    Args:
        moment: C.
        weight: λ, in tokens: how many average tokens an edit must leave in place.
        previous_IM: K_p, the keys of earlier edits.

    Raises:
        EditError: The sum is not positive definite: a key is not finite, or C is zero.
    """

    def plain(right_IN: Tensor) -> Tensor:
        return moment.solve(right_IN) / weight

    if previous_IM is None or previous_IM.shape[1] == 0:
        return plain
    previous = previous_IM.double()
    size, count = previous.shape
    if count > size // 4:
        factor_II = _factored(weight * moment.ridged + previous @ previous.T)
        return lambda right_IN: torch.cholesky_solve(right_IN, factor_II)
    solved_IM = plain(previous)
    inner_MM = torch.eye(count, dtype=torch.float64) + previous.T @ solved_IM
    factor_MM = _factored(inner_MM)

    def with_previous(right_IN: Tensor) -> Tensor:
        base_IN = plain(right_IN)
        inner: Tensor = torch.cholesky_solve(previous.T @ base_IN, factor_MM)
        return base_IN - solved_IM @ inner

    return with_previous


def _factored(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of a sum over earlier keys."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not torch.isfinite(factor).all():
        raise EditError("the second moment with the earlier keys is not positive definite; give more text to C")
    lower: Tensor = factor
    return lower


@dataclass(frozen=True)
class NullSpace:
    """Directions of a projection's input that text uses little: the trailing eigenvectors of C.

    Attributes:
        basis: Û [I, R], orthonormal columns; the projector of the paper is P = Û Ûᵀ.
        threshold: The largest eigenvalue of C among them.
        mass: tr(P C) = E‖P k‖² over the text.
        share: mass / tr(C).
    """

    basis: Tensor
    threshold: float
    mass: float
    share: float


def null_space(basis: Eigenbasis, *, share: float | None = None, threshold: float | None = None) -> NullSpace:
    """The trailing eigenvectors of C that an edit may write along; AlphaEdit, section 3.

    Without a limit, as many as let a fact be written with the least disturbance of the text. On one key k,
    a unit residual is written by P k / ‖P k‖², which moves the outputs over the text by
    E‖ΔW x‖² = kᵀP C P k / ‖P k‖⁴. For keys that spread over the null space as text does, this is
    Σλ² / (Σλ)² over its eigenvalues λ: one over their participation ratio, which is largest where λ stays below
    about twice the mean that weighs each direction by its mass.

    Args:
        basis: The eigenbasis of C.
        share: Of tr(C), at most this is left in the null space.
        threshold: Eigenvalues below it belong to the null space, as published (2e-2); it has the unit of C, so it
            fits one model only.

    Raises:
        SettingError: No direction is left.
    """
    held_I = basis.values.cumsum(0)
    total = float(held_I[-1])
    if threshold is not None:
        size = int((basis.values < threshold).sum())
    elif share is not None:
        size = int((held_I <= share * total * (1 + 1e-12)).sum())
    else:
        size = int((held_I**2 / (basis.values**2).cumsum(0).clamp(min=1e-300)).argmax()) + 1
    if size == 0:
        asked = f"null_share {share}" if threshold is None else f"threshold {threshold}"
        least = float(basis.values[0])
        raise SettingError(
            f"{asked} leaves no direction to write along: the smallest eigenvalue of the second moment is {least:.3g}, "
            f"a share of {least / total:.2g}; give a larger one"
        )
    mass = float(held_I[size - 1])
    return NullSpace(basis.vectors[:, :size], float(basis.values[size - 1]), mass, mass / total)


def alphaedit_update(
    residual_ON: Tensor, key_IN: Tensor, previous_IM: Tensor | None, basis_IR: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """The factors left [O, N], right [N, I] of ΔW = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + L2·1)⁻¹.

    AlphaEdit, section 3. It equals [R 0] (K̃ᵀK̃ + L2·1)⁻¹ K̃ᵀ with K̃ = P [K K_p], a J × J system, and, in the
    coordinates of the null space, R K̂ᵀ (ĴĴᵀ + L2·1)⁻¹ Ûᵀ with Ĵ = Ûᵀ [K K_p], an R × R system. The smaller one
    is solved; P is never formed.

    Args:
        residual_ON: R, what the outputs lack.
        key_IN: K.
        previous_IM: K_p, the keys of earlier edits.
        basis_IR: Û.
        ridge: L2, in the unit of ‖k‖²; positive.

    Raises:
        EditError: The keys are not finite, or so alike that L2 does not tell them apart.
    """
    joined_IJ = key_IN if previous_IM is None else torch.cat([key_IN, previous_IM.to(key_IN.dtype)], 1)
    joined_RJ = basis_IR.T @ joined_IJ
    size, count = joined_RJ.shape
    facts = key_IN.shape[1]
    small = joined_RJ.T @ joined_RJ if count <= size else joined_RJ @ joined_RJ.T
    small.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(small)
    if failed or not torch.isfinite(factor).all():
        raise EditError(f"the keys with L2 = {ridge:.3g} give a system that is not positive definite; give a larger L2")
    if count <= size:
        chosen_JN = torch.eye(count, facts, dtype=small.dtype)
        right_RN = joined_RJ @ torch.cholesky_solve(chosen_JN, factor)
    else:
        right_RN = torch.cholesky_solve(joined_RJ[:, :facts], factor)
    return residual_ON, (basis_IR @ right_RN).T
