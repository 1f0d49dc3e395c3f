"""Kronecker-factored Fisher information: what a change of a matrix costs tasks that were learnt before.

For the loss L of a row with the gradient Γ = ∂L/∂W [O, I], the Fisher information E[vec Γ vec Γᵀ] of a matrix is
held as E[ΓΓᵀ] ⊗ E[ΓᵀΓ] / E‖Γ‖²_F: the Kronecker product that has its partial traces. The factors are those of Gupta,
Koren and Singer, "Shampoo", ICML 2018; Morwani et al., arXiv 2406.17748, show them to be one power iteration to the
nearest Kronecker product. Γ = Σ_t g_t x_tᵀ is never formed: a factor is a sketch of what it does to a few directions.

Shape suffixes: B rows, T tokens, O rows and I columns of a matrix, N either of them, K directions, R rank, S tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.errors import SettingError

_BEYOND = 2  # directions sketched for each that is kept
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Positive semi-definite matrices, one for each task: V diag(λ) Vᵀ + ρ (1 − V Vᵀ).

    Attributes:
        vectors_SNK: V, orthonormal columns; zero where a matrix has fewer.
        values_SK: λ.
        rest_S: ρ, the mean of the eigenvalues that are not kept.
    """

    vectors_SNK: Tensor
    values_SK: Tensor
    rest_S: Tensor

    @property
    def excess_SK(self) -> Tensor:  # noqa: N802 - a shape suffix
        """λ − ρ: by how much the kept eigenvalues pass the others."""
        return self.values_SK - self.rest_S[:, None]

    def gram(self, matrix_NR: Tensor) -> Tensor:
        """XᵀAX of each matrix A, [S, R, R]."""
        inside_SKR = self.vectors_SNK.mT @ matrix_NR
        even_SRR = self.rest_S[:, None, None] * (matrix_NR.T @ matrix_NR)
        return inside_SKR.mT @ (self.excess_SK[..., None] * inside_SKR) + even_SRR

    def whole(self) -> Tensor:
        """The matrices themselves, [S, N, N]: for tests and small sizes."""
        size = self.vectors_SNK.shape[1]
        eye = torch.eye(size, dtype=self.vectors_SNK.dtype, device=self.vectors_SNK.device)
        return (self.vectors_SNK * self.excess_SK[:, None]) @ self.vectors_SNK.mT + self.rest_S[:, None, None] * eye

    def __mul__(self, factor: float) -> "Spectrum":
        """The matrices times a number of at least zero."""
        return Spectrum(self.vectors_SNK, self.values_SK * factor, self.rest_S * factor)


def joined(first: Spectrum, second: Spectrum) -> Spectrum:
    """The tasks of both, one after the other; where the one has fewer directions, the others are empty."""
    most = max(first.values_SK.shape[1], second.values_SK.shape[1])
    parts = []
    for each in (first, second):
        short = most - each.values_SK.shape[1]
        vectors = torch.nn.functional.pad(each.vectors_SNK, (0, short))
        parts.append((vectors, torch.nn.functional.pad(each.values_SK, (0, short)), each.rest_S))
    vectors_SNK, values_SK, rest_S = (torch.cat(column) for column in zip(*parts, strict=True))
    return Spectrum(vectors_SNK, values_SK, rest_S)


def cost_of_factors(left_OR: Tensor, right_RI: Tensor, outer: Spectrum, inner: Spectrum) -> Tensor:
    """Σ_S δᵀ(A_S ⊗ B_S)δ of δ = left · right, with gradients: Σ tr((LᵀAL)(R B Rᵀ)); δ is never formed.

    Args:
        left_OR: The left factor.
        right_RI: The right one.
        outer: A, [O, O] for each task.
        inner: B, [I, I] for each task.
    """
    return (outer.gram(left_OR) * inner.gram(right_RI.T)).sum()


def cost_of_matrix(delta_OI: Tensor, outer: Spectrum, inner: Spectrum) -> Tensor:
    """Σ_S δᵀ(A_S ⊗ B_S)δ = Σ tr(δᵀA δ B) of a matrix, with gradients, in the eigenvectors' coordinates.

    Args:
        delta_OI: δ.
        outer: A, [O, O] for each task.
        inner: B, [I, I] for each task.
    """
    rows_SKI = outer.vectors_SNK.mT @ delta_OI
    columns_SOK = delta_OI @ inner.vectors_SNK
    both_SKK = rows_SKI @ inner.vectors_SNK
    more_outer_SK, more_inner_SK = outer.excess_SK, inner.excess_SK
    parts_S = (
        torch.einsum("skl,sk,sl->s", both_SKK.square(), more_outer_SK, more_inner_SK)
        + inner.rest_S * (rows_SKI.square().sum(-1) * more_outer_SK).sum(-1)
        + outer.rest_S * (columns_SOK.square().sum(-2) * more_inner_SK).sum(-1)
        + outer.rest_S * inner.rest_S * delta_OI.square().sum()
    )
    return parts_S.sum()


class FactorSketch:
    """Both factors of one matrix's Fisher information, from the inputs and gradients of rows as they pass.

    Memory: 2 · kept · (O + I) numbers while rows pass, half of it afterwards.
    """

    def __init__(self, rows: int, columns: int, kept: int, device: torch.device | None = None) -> None:
        self._kept = kept
        self._probes = [_probe(size, min(_BEYOND * kept, size)).to(device) for size in (rows, columns)]
        self._seen = [torch.zeros_like(probe) for probe in self._probes]
        self._trace = 0.0

    @torch.no_grad()
    def add(self, inputs_BTI: Tensor, gradients_BTO: Tensor) -> None:
        """Take in rows: what the matrix read, and the gradient of each row's own loss where it gave its output.

        Padding must be zero in one of the two.
        """
        x_BTI, g_BTO = inputs_BTI.float(), gradients_BTO.float()
        outer, inner = self._probes
        self._seen[0] += torch.einsum("bto,btk->ok", g_BTO, x_BTI @ (x_BTI.mT @ (g_BTO @ outer)))
        self._seen[1] += torch.einsum("bti,btk->ik", x_BTI, g_BTO @ (g_BTO.mT @ (x_BTI @ inner)))
        self._trace += float(((x_BTI @ x_BTI.mT) * (g_BTO @ g_BTO.mT)).sum())

    def spectra(self, count: int) -> tuple[Spectrum, Spectrum]:
        """The factors A and B of one task, so that A ⊗ B is the information of one of `count` rows or tokens."""
        outer, inner = (
            spectrum_of(seen, probe, self._trace, self._kept)
            for seen, probe in zip(self._seen, self._probes, strict=True)
        )
        return outer * (1 / (self._trace * count) if self._trace > 0 else 0.0), inner


def spectrum_of(seen_NK: Tensor, probe_NK: Tensor, trace: float, kept: int) -> Spectrum:
    """The largest eigenvalues of A from A Ω: the fixed-rank Nyström approximation.

    Tropp, Yurtsever, Udell and Cevher, "Fixed-rank approximation of a positive-semidefinite matrix from streaming
    data", NIPS 2017, algorithm 3. What of the trace it does not hold is spread evenly over the other directions.

    Args:
        seen_NK: A Ω.
        probe_NK: Ω, orthonormal columns.
        trace: tr(A).
        kept: At most this many eigenvectors.
    """
    seen, probe = seen_NK.double().cpu(), probe_NK.double().cpu()
    size, kept = len(seen), min(kept, seen.shape[1])
    norm = float(torch.linalg.matrix_norm(seen))
    if norm == 0 or trace <= 0:
        return Spectrum(torch.zeros(1, size, kept), torch.zeros(1, kept), torch.zeros(1))
    shift = 1e-6 * norm  # A Ω is of float32
    shifted = seen + shift * probe
    core = probe.T @ shifted
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    root = vectors * values.clamp(min=shift).rsqrt()
    left, singular, _ = torch.linalg.svd(shifted @ root, full_matrices=False)
    found = (singular.square() - shift).clamp(min=0)[:kept]
    rest = max(trace - float(found.sum()), 0.0) / (size - kept) if size > kept else 0.0
    return Spectrum(left[None, :, :kept].float(), found[None].float(), torch.tensor([rest]))


def _probe(size: int, count: int) -> Tensor:
    """Orthonormal directions, drawn by their size alone, so that every matrix of a size has the same."""
    generator = torch.Generator().manual_seed(size)
    probe_NK: Tensor = torch.linalg.qr(torch.randn(size, count, generator=generator))[0]
    return probe_NK


def as_state(found: Mapping[str, tuple[Spectrum, Spectrum]]) -> dict[str, Tensor]:
    """Spectra of named matrices as tensors of a file."""
    state = {}
    for name, pair in found.items():
        for side, each in zip(("outer", "inner"), pair, strict=True):
            parts = {"vectors": each.vectors_SNK, "values": each.values_SK, "rest": each.rest_S}
            state.update({f"{side}.{part}.{name}": tensor.cpu().contiguous() for part, tensor in parts.items()})
    return state


def from_state(state: State, device: torch.device | None = None) -> dict[str, tuple[Spectrum, Spectrum]]:
    """The spectra of `as_state`, on a device.

    Raises:
        SettingError: It is not such a state.
    """
    names = [key.split(".", 2)[2] for key in state if key.startswith("outer.rest.")]
    if len(state) != 6 * len(names):
        raise SettingError("what is kept of earlier tasks is not Kronecker-factored Fisher information")
    return {name: (_spectrum(state, "outer", name, device), _spectrum(state, "inner", name, device)) for name in names}


def _spectrum(state: State, side: str, name: str, device: torch.device | None) -> Spectrum:
    vectors, values, rest = (state[f"{side}.{part}.{name}"].to(device) for part in ("vectors", "values", "rest"))
    return Spectrum(vectors, values, rest)


def summed(
    before: Mapping[str, tuple[Spectrum, Spectrum]], now: Mapping[str, tuple[Spectrum, Spectrum]]
) -> dict[str, tuple[Spectrum, Spectrum]]:
    """The information of the tasks of both; a matrix that only one of them changed has that one's."""
    found = {**before, **now}
    for name in before.keys() & now.keys():
        (outer, inner), (more_outer, more_inner) = before[name], now[name]
        found[name] = joined(outer, more_outer), joined(inner, more_inner)
    return found
