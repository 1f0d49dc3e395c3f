"""The delta: what changes in a model's weights, tensor by tensor, as low-rank factors or dense values.

Shape suffixes: O rows and I columns of the tensor as it is stored, R rank, N keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from perdure.errors import SettingError

_CHUNK_ELEMENTS = 1 << 18  # rows are summed in pieces of 2 MiB, which stay in a core's cache


@dataclass(frozen=True)
class LowRank:
    """A product of two factors, `left_OR @ right_RI`.

    Attributes:
        left: [O, R], float32.
        right: [R, I], float32.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        left, right = tuple(self.left.shape), tuple(self.right.shape)
        if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
            raise SettingError(f"low-rank factors must be [O, R] and [R, I]; given {left} and {right}")

    @property
    def rank(self) -> int:
        """The number of columns of the left factor: an upper bound of the matrix rank."""
        return int(self.left.shape[1])

    def product(self) -> Tensor:
        """The dense [O, I] matrix, float64."""
        return self.left.double() @ self.right.double()


@dataclass(frozen=True)
class Change:
    """The change of one tensor: the sum of a low-rank and a dense part, each of which may be absent."""

    low_rank: LowRank | None = None
    dense: Tensor | None = None

    def __post_init__(self) -> None:
        if self.low_rank is None and self.dense is None:
            raise SettingError("a change needs a low-rank or a dense part; given neither")
        if self.low_rank is not None and self.dense is not None and self.dense.shape != self.shape:
            raise SettingError(f"parts differ in shape: {tuple(self.dense.shape)} and {tuple(self.shape)}")

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor that this changes."""
        if self.low_rank is not None:
            return torch.Size((self.low_rank.left.shape[0], self.low_rank.right.shape[1]))
        assert self.dense is not None
        return self.dense.shape

    @property
    def is_low_rank(self) -> bool:
        """Whether the factors say everything."""
        return self.dense is None

    def value(self) -> Tensor:
        """The whole change as one dense float64 tensor."""
        low_rank = None if self.low_rank is None else self.low_rank.product()
        dense = None if self.dense is None else self.dense.double()
        if low_rank is not None and dense is not None:
            return low_rank + dense
        return low_rank if low_rank is not None else dense  # type: ignore[return-value]

    def norm(self) -> float:
        """The Frobenius norm; for factors without forming the product: ‖LR‖² = tr((LᵀL)(RRᵀ))."""
        if self.low_rank is not None and self.dense is None:
            left, right = self.low_rank.left.double(), self.low_rank.right.double()
            squared = ((left.T @ left) * (right @ right.T)).sum()
            return float(squared.clamp(min=0).sqrt())
        return float(torch.linalg.vector_norm(self.value()))

    def __add__(self, other: "Change") -> "Change":
        if self.shape != other.shape:
            raise SettingError(f"changes differ in shape: {tuple(self.shape)} and {tuple(other.shape)}")
        pairs = [part for part in (self.low_rank, other.low_rank) if part is not None]
        low_rank = None
        if pairs:
            low_rank = LowRank(
                torch.cat([part.left for part in pairs], 1), torch.cat([part.right for part in pairs], 0)
            )
        dense = [part for part in (self.dense, other.dense) if part is not None]
        return Change(low_rank, reduce(torch.add, dense) if dense else None)

    def __mul__(self, factor: float) -> "Change":
        low_rank = self.low_rank and LowRank(self.low_rank.left * factor, self.low_rank.right)
        return Change(low_rank, None if self.dense is None else self.dense * factor)

    def rows(self, start: int, stop: int) -> "Change":
        """The change of rows `start` to `stop` of the tensor, as a matrix; see `row_length`."""
        low_rank = self.low_rank and LowRank(self.low_rank.left[start:stop], self.low_rank.right)
        if self.dense is None:
            return Change(low_rank)
        return Change(low_rank, self.dense.reshape(-1, row_length(self.dense.shape))[start:stop])

    def tensors(self) -> Iterable[Tensor]:
        """Every tensor that this change is made of."""
        if self.low_rank is not None:
            yield from (self.low_rank.left, self.low_rank.right)
        if self.dense is not None:
            yield self.dense


@dataclass(frozen=True)
class Delta:
    """A change of a model: one `Change` per tensor name, and the keys that it was solved on.

    Attributes:
        changes: From the tensor's name in the checkpoint to its change.
        keys: From a matrix's name to the inputs [I, N] (float32) whose outputs the change sets. Later
            edits protect them (MEMIT with previous keys); they leave with the delta when it is undone.
        notes: JSON-like facts about the solve: layers, steps, losses, seeds.
        values: From a fact's id to the state that its target value was searched from and the shift that was
            found [2, D] (float32), for editors that search one. When other facts are taken out of the edit,
            it is solved again from these, without a search.
    """

    changes: Mapping[str, Change] = field(default_factory=dict)
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __add__(self, other: "Delta") -> "Delta":
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = changes[name] + change if name in changes else change
        keys = dict(self.keys)
        for name, key_IN in other.keys.items():
            keys[name] = torch.cat([keys[name], key_IN], 1) if name in keys else key_IN
        return Delta(changes, keys, {**self.notes, **other.notes}, {**self.values, **other.values})

    def __mul__(self, factor: float) -> "Delta":
        return Delta({name: change * factor for name, change in self.changes.items()}, self.keys, self.notes)

    def __neg__(self) -> "Delta":
        return Delta((self * -1.0).changes)

    def __sub__(self, other: "Delta") -> "Delta":
        return self + -other

    def norms(self) -> dict[str, float]:
        """The Frobenius norm of each change."""
        return {name: change.norm() for name, change in self.changes.items()}

    def check_finite(self) -> "Delta":
        """This delta, if every number in it is finite.

        Raises:
            SettingError: A tensor holds NaN or infinity; the message names it.
        """
        for name, change in self.changes.items():
            if not all(torch.isfinite(tensor).all() for tensor in change.tensors()):
                raise SettingError(f"the change of {name} holds NaN or infinite numbers")
        return self


def changed(weight: Tensor, change: Change) -> Tensor:
    """The weight [O, I] plus its change, with the same bits on every machine.

    A BLAS product would sum in an order of its own. Here the rank-one terms are added one by one in
    float64, element by element, and the sum is converted to the weight's dtype at the end (torch goes
    through float32 on the way to 16 bits): every operation is fixed by IEEE 754. A version's weights are
    *defined* by this sum, so factors alone restore them. Memory: the result and pieces of 2 MiB.

    Raises:
        SettingError: The shapes differ.
    """
    if weight.shape != change.shape:
        raise SettingError(f"the weight has shape {tuple(weight.shape)}, its change {tuple(change.shape)}")
    result = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    low_rank, columns = change.low_rank, row_length(weight.shape)
    if low_rank is not None:
        low_rank = LowRank(low_rank.left.to(weight.device).double(), low_rank.right.to(weight.device).double())
    rows = Change(low_rank, change.dense)
    weight_rows, result_rows = weight.reshape(-1, columns), result.view(-1, columns)
    step = max(1, _CHUNK_ELEMENTS // max(1, columns))
    for start in range(0, weight_rows.shape[0], step):
        stop = start + step
        total = _summed(weight_rows[start:stop], rows.rows(start, stop))
        result_rows[start:stop] = total.to(weight.dtype)
    return result


def row_length(shape: Sequence[int]) -> int:
    """The columns of a tensor worked on in pieces, as a matrix: its last size; 1 for vectors and single numbers."""
    return max(1, shape[-1]) if len(shape) > 1 else 1


def _summed(weight_OI: Tensor, change: Change) -> Tensor:
    """The sum in float64, in the order that defines it: the weight, the dense part, the rank-one terms."""
    total_OI = weight_OI.to(torch.float64, copy=True)
    low_rank, dense = change.low_rank, change.dense
    if dense is not None:
        total_OI = total_OI + dense.to(weight_OI.device).double()
    if low_rank is None or low_rank.rank == 0:
        return total_OI if dense is not None else total_OI + 0.0
    _add_terms(total_OI, low_rank.left, low_rank.right)
    return total_OI


def _add_terms(total_OI: Tensor, left_OR: Tensor, right_RI: Tensor) -> None:
    """Add left @ right to `total`, one rank-one term after the other, in place."""
    term = torch.empty_like(total_OI)
    for left_O, right_I in zip(left_OR.T, right_RI, strict=True):
        torch.mul(left_O[:, None], right_I, out=term)
        total_OI += term


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Delta:
    """The dense delta between two sets of weights; tensors with equal bits are left out.

    Raises:
        SettingError: The two sets differ in names, shapes or dtypes.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise SettingError(f"the two checkpoints differ in tensor names, for example {odd[:5]}")
    changes = {}
    for name, old in before.items():
        new = after[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            raise SettingError(
                f"{name} is {old.dtype} {tuple(old.shape)} in one and {new.dtype} {tuple(new.shape)}"
                " in the other; a delta needs equal shapes and dtypes"
            )
        if not torch.equal(old, new):
            changes[name] = Change(dense=(new.double() - old.double()).to(torch.float32))
    return Delta(changes)
