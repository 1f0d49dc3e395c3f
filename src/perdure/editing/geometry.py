"""The angle between two updates of a neuron, how much of it is noise, and what the two become.

Feng et al., "GeoEdit: Geometric Knowledge Editing for Large Language Models", arXiv 2502.19953. Pure functions
of tensors, float64 inside. Shape suffixes: N neurons, D numbers of one neuron, R directions kept.
"""

import math
from enum import IntEnum
from itertools import groupby

import torch
from torch import Tensor

from perdure.errors import SettingError

_SPARE = 16  # columns beyond those asked for, which make the subspace iteration converge fast
_EPSILON = torch.finfo(torch.float64).tiny


class Case(IntEnum):
    """What a neuron's two updates say about each other; the values are stored, so they never change."""

    SKIPPED = 0
    """One of the two updates is negligible: their angle says nothing."""
    ORTHOGONAL = 1
    """The two have nothing to do with each other: the neuron carries general knowledge."""
    ACUTE = 2
    """Old and new answer pull the same way."""
    OBTUSE = 3
    """Old and new answer are in conflict."""

    @property
    def word(self) -> str:
        """The case as people read it."""
        return self.name.lower()


def angles(first_NR: Tensor, second_NR: Tensor) -> Tensor:
    """The angle between each pair of rows, in degrees from 0 to 180, [N]; 90 where a row is zero.

    2 atan2(‖u − v‖, ‖u + v‖) of the unit vectors (Kahan), which unlike arccos keeps its digits near 0° and 180°.
    """
    u_NR, v_NR = _unit(first_NR.double()), _unit(second_NR.double())
    gap_N, sum_N = (u_NR - v_NR).norm(dim=1), (u_NR + v_NR).norm(dim=1)
    return torch.rad2deg(2 * torch.atan2(gap_N, sum_N))


def leading_directions(first_ND: Tensor, second_ND: Tensor, count: int, *, steps: int = 12) -> Tensor:
    """The optimal linear auto-encoder of both updates together: orthonormal directions [D, R], R = min(count, D, 2N).

    They span the best approximation of the stacked rows through the origin (PCA without centring: an angle
    belongs to the origin, which here means "no change"; a centred PCA would hide what all neurons share). Each of
    the two is scaled to norm 1 first, so that the larger one does not decide alone.

    From `eigh` of the smaller Gram matrix where that has at most 8 · (R + 16) rows, else by block subspace iteration
    with a fixed start and Rayleigh-Ritz values; each step costs 4 · 2N · D · (R + 16) multiply-adds, and the two
    updates are never stacked.
    """
    parts = [_scaled(first_ND.double()), _scaled(second_ND.double())]
    size, rows = first_ND.shape[1], 2 * first_ND.shape[0]
    kept = min(count, size, rows)
    if min(size, rows) <= 8 * (kept + _SPARE):
        return _directions_by_eigh(parts, kept)
    generator = torch.Generator().manual_seed(0)
    block_DK = torch.randn(size, kept + _SPARE, generator=generator, dtype=torch.float64).to(first_ND.device)
    for _ in range(steps):
        block_DK = torch.linalg.qr(_gram_times(parts, block_DK))[0]
    inner_KK = block_DK.T @ _gram_times(parts, block_DK)
    found_DR: Tensor = block_DK @ torch.linalg.eigh(inner_KK)[1].flip(1)[:, :kept]
    return found_DR


def effective_dimension(first_NR: Tensor, second_NR: Tensor) -> float:
    """1 / mean cos² over all pairs of rows of *different* neurons: how many dimensions unrelated updates live in.

    With A and B the second moments of the unit rows, the mean over all N² pairs is tr(A B); the N pairs of one
    neuron with itself are taken out. For directions spread evenly over R dimensions this is R, for uneven ones
    less (for A = B the participation ratio (Σλ)² / Σλ² of their second moment). At least 1.
    """
    u_NR, v_NR = _unit(first_NR.double()), _unit(second_NR.double())
    count = len(u_NR)
    if count < 2:
        return 1.0
    every = float(((u_NR.T @ u_NR) * (v_NR.T @ v_NR)).sum())
    own = float((u_NR * v_NR).sum(1).square().sum())
    mean = (every - own) / (count * (count - 1))
    return min(1 / mean, float(u_NR.shape[1])) if mean > 0 else float(u_NR.shape[1])


def noise_margin(dimension: float, width: float, *, most: float = 75.0) -> float:
    """How far from 90° an angle of unrelated updates may lie, in degrees: width · 57.3° / √dimension, at most `most`.

    In d dimensions the cosine of unrelated directions has mean 0 and standard deviation 1/√d.

    Raises:
        SettingError: The dimension is below 1 or the width negative.
    """
    if dimension < 1 or width < 0:
        raise SettingError(f"a margin needs a dimension of at least 1 and a width ≥ 0; given {dimension} and {width}")
    return min(width * math.degrees(1) / math.sqrt(dimension), most)


def negligible(first_ND: Tensor, second_ND: Tensor, share: float) -> Tensor:
    """Which neurons [N] hardly move in one of the two updates: ‖row‖ at most `share` of the root mean square norm."""
    found = torch.zeros(len(first_ND), dtype=torch.bool, device=first_ND.device)
    for update_ND in (first_ND, second_ND):
        squares_N = update_ND.double().square().sum(1)
        found |= squares_N <= share**2 * squares_N.mean()
    return found


def classify(angle_N: Tensor, margin: float, skipped_N: Tensor) -> Tensor:
    """The case of each neuron as a code of `Case`, int8 [N]: acute below 90° − margin, obtuse above 90° + margin."""
    case_N = torch.full(angle_N.shape, Case.ORTHOGONAL, dtype=torch.int8, device=angle_N.device)
    case_N[angle_N < 90 - margin] = Case.ACUTE
    case_N[angle_N > 90 + margin] = Case.OBTUSE
    case_N[skipped_N] = Case.SKIPPED
    return case_N


def fuse(old_ND: Tensor, new_ND: Tensor, case_N: Tensor, old_share_N: Tensor | None, forget: float) -> Tensor:
    """One update [N, D] from both: obtuse −λ τ_old + τ_new, acute w τ_old + (1 − w) τ_new, else exact zeros.

    Args:
        old_ND: τ_old, the update that the old answers ask for.
        new_ND: τ_new, the update that the new answers ask for.
        case_N: Codes of `Case`.
        old_share_N: w of each neuron, from 0 to 1 (`old_share`); acute neurons become exact zeros without it.
        forget: λ, how much of τ_old is taken away in conflict.
    """
    fused_ND = torch.zeros_like(new_ND)
    acute_N, obtuse_N = case_N == Case.ACUTE, case_N == Case.OBTUSE
    if old_share_N is not None:
        share_A1 = old_share_N[acute_N, None].to(new_ND.dtype)
        fused_ND[acute_N] = share_A1 * old_ND[acute_N] + (1 - share_A1) * new_ND[acute_N]
    fused_ND[obtuse_N] = new_ND[obtuse_N] - forget * old_ND[obtuse_N]
    return fused_ND


def shared_part(old_ND: Tensor, new_ND: Tensor) -> float:
    """β, how much of τ_old lies in τ_new over all neurons together: <τ_old, τ_new> / ‖τ_old‖², at least 0.

    Both trainings teach to answer at all, in this form, after these prompts; what is left of τ_new, τ_new − β τ_old,
    is what tells the new answer from the old one. 0 where τ_old is zero.
    """
    wide_ND = old_ND.double()
    square = float(wide_ND.square().sum())
    return max(0.0, float((wide_ND * new_ND.double()).sum()) / square) if square > 0 else 0.0


def takeover(update_ND: Tensor, moving_N: Tensor, *, most: float = 4.0) -> float:
    """By how much the neurons that move are scaled so that they do what all of them would have done: at most `most`.

    ‖τ‖² / ‖τ_moving‖². To first order an update along the gradient lowers the loss by its squared norm; masking a part
    takes that part away. Yu et al., "Language Models are Super Mario" (DARE), ICML 2024, rescale by 1 / (1 − p) where a
    share p of numbers is dropped at random, which is the same where all numbers are alike. 1 where nothing moves.
    """
    square_N = update_ND.double().square().sum(1)
    kept, whole = float(square_N[moving_N].sum()), float(square_N.sum())
    return min(most, whole / kept) if kept > 0 else 1.0


def old_share(old_importance_N: Tensor, new_importance_N: Tensor) -> Tensor:
    """s_old / (s_old + s_new) of each neuron [N], each importance first divided by its mean; ½ where both are zero.

    The two come from different losses: only how a neuron stands among its neighbours can be compared.
    """
    old_N, new_N = _relative(old_importance_N), _relative(new_importance_N)
    total_N = old_N + new_N
    return torch.where(total_N > 0, old_N / total_N.clamp(min=_EPSILON), 0.5)


def ranges(case_N: Tensor) -> dict[str, str]:
    """The neurons of each case as text, such as {"acute": "0-3,7", "orthogonal": "4-6"}; empty cases are left out."""
    found: dict[str, list[str]] = {}
    start = 0
    for code, run in groupby(case_N.tolist()):
        stop = start + sum(1 for _ in run) - 1
        found.setdefault(Case(code).word, []).append(f"{start}-{stop}" if stop > start else f"{start}")
        start = stop + 1
    return {word: ",".join(parts) for word, parts in sorted(found.items())}


def histograms(angle_N: Tensor, case_N: Tensor, bins: int = 36) -> dict[str, list[int]]:
    """How many neurons of each case have their angle in each of `bins` equal parts of 0° to 180° (180° in the last)."""
    place_N = (angle_N * (bins / 180)).long().clamp(0, bins - 1).cpu()
    counts = {case: torch.bincount(place_N[case_N.cpu() == case], minlength=bins).tolist() for case in Case}
    return {case.word: found for case, found in sorted(counts.items()) if sum(found)}


def _unit(rows_NR: Tensor) -> Tensor:
    """Each row divided by its norm; zero rows stay zero."""
    unit_NR: Tensor = rows_NR / rows_NR.norm(dim=1, keepdim=True).clamp(min=_EPSILON)
    return unit_NR


def _scaled(rows_ND: Tensor) -> Tensor:
    """All rows divided by their joint norm."""
    scaled_ND: Tensor = rows_ND / rows_ND.norm().clamp(min=_EPSILON)
    return scaled_ND


def _relative(importance_N: Tensor) -> Tensor:
    wide_N = importance_N.double()
    return wide_N / wide_N.mean().clamp(min=_EPSILON)


def _gram_times(parts: list[Tensor], block_DK: Tensor) -> Tensor:
    """Xᵀ X times a block, X being the parts on top of each other."""
    return sum((part.T @ (part @ block_DK) for part in parts[1:]), parts[0].T @ (parts[0] @ block_DK))


def _directions_by_eigh(parts: list[Tensor], count: int) -> Tensor:
    stacked_MD = torch.cat(parts)
    rows, size = stacked_MD.shape
    if size <= rows:
        found_DR: Tensor = torch.linalg.eigh(stacked_MD.T @ stacked_MD)[1].flip(1)[:, :count]
        return found_DR
    vectors_MM = torch.linalg.eigh(stacked_MD @ stacked_MD.T)[1].flip(1)[:, :count]
    basis_DR: Tensor = torch.linalg.qr(stacked_MD.T @ vectors_MM)[0]
    return basis_DR
