"""Where the weights moved: norms, singular values and condition numbers of every changed matrix."""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from perdure.content import digest_tensor
from perdure.deltas import Change, Delta, Extremes, changed, extremes, singular_values
from perdure.errors import SettingError
from perdure.measuring.report import MatrixMeasures
from perdure.progress import Progress, counting, silent

Recall = Callable[[str], Sequence[float] | None]
"""From a tensor's digest to the (largest, smallest) singular value remembered for it, or None."""
Remember = Callable[[str, tuple[float, float]], None]
"""Keeps the (largest, smallest) singular value of the tensor with this digest."""

_VALUES = 32


def measure_matrices(
    base_weights: Mapping[str, Tensor],
    applied: Delta,
    solved: Delta,
    recall: Recall = lambda _digest: None,
    remember: Remember = lambda _digest, _values: None,
    *,
    dense_limit: int = 12,
    progress: Progress = silent,
) -> tuple[MatrixMeasures, ...]:
    """The measures of each changed matrix, in the order of `applied`.

    Each costs the eigenvalues of two Gram matrices. Low-rank changes are all measured; of dense ones, which
    may touch every tensor of a model, the `dense_limit` with the largest relative norms. Tensors with
    other than two dimensions have no condition number and are left out.

    Args:
        base_weights: The base's tensors, by name; those that changed are read.
        applied: The accumulated change against the base, as it is in the candidate.
        solved: The same before the restraint; where it lacks a name, `applied` is taken.
        recall: Looks up the extreme singular values of a base tensor.
        remember: Keeps them.
        dense_limit: How many dense changes are measured.
        progress: Told how far the work is.

    Raises:
        SettingError: A changed tensor is not among the base weights.
    """
    missing = sorted(set(applied.changes) - set(base_weights))
    if missing:
        raise SettingError(f"the base has no tensor {missing[0]!r}; the change is of another model")
    names = _choose(base_weights, applied, dense_limit)
    done = counting(progress, "condition numbers", len(names))
    found = []
    for name in names:
        base = base_weights[name]
        before = _extremes_of_base(base, recall, remember)
        found.append(_measure(name, base, before, applied.changes[name], solved.changes.get(name)))
        done(1)
    return tuple(found)


def layer_of(name: str) -> int | None:
    """The decoder block that a tensor's name says: its first whole number."""
    found = re.search(r"(?<![^.])\d+(?![^.])", name)
    return int(found.group()) if found else None


def _choose(base_weights: Mapping[str, Tensor], applied: Delta, dense_limit: int) -> list[str]:
    matrices = {name: change for name, change in applied.changes.items() if len(change.shape) == 2}
    dense = [name for name, change in matrices.items() if not change.is_low_rank]
    if len(dense) > dense_limit:
        size = {name: _relative(matrices[name].norm(), base_weights[name]) for name in dense}
        dense = sorted(dense, key=lambda name: -size[name])[:dense_limit]
    kept = set(dense)
    return [name for name, change in matrices.items() if change.is_low_rank or name in kept]


def _extremes_of_base(base: Tensor, recall: Recall, remember: Remember) -> Extremes:
    digest = digest_tensor(base)
    known = recall(digest)
    if known is not None:
        return Extremes(*known)
    found = extremes(base)
    remember(digest, (found.largest, found.smallest))
    return found


def _measure(name: str, base: Tensor, before: Extremes, change: Change, solved: Change | None) -> MatrixMeasures:
    values = singular_values(change)
    values_solved = values if solved is None or solved is change else singular_values(solved)
    norm = change.norm()
    return MatrixMeasures(
        name=name,
        layer=layer_of(name),
        shape=(int(base.shape[0]), int(base.shape[1])),
        rank=change.low_rank.rank if change.is_low_rank and change.low_rank is not None else None,
        norm=norm,
        relative_norm=_relative(norm, base),
        sigma_max_base=before.largest,
        sigma_max_delta=_first(values),
        sigma_max_solved=_first(values_solved),
        condition_before=_finite(before.condition),
        condition_after=_finite(extremes(changed(base, change)).condition),
        singular_values=tuple(values[:_VALUES].tolist()),
        singular_values_solved=tuple(values_solved[:_VALUES].tolist()),
    )


def _relative(norm: float, base: Tensor) -> float:
    size = float(torch.linalg.vector_norm(base, dtype=torch.float64))
    return norm / size if size > 0 else _finite(math.inf if norm > 0 else 0.0)


def _first(values: Tensor) -> float:
    return float(values[0]) if len(values) else 0.0


def _finite(value: float) -> float:
    """The value, or the largest float for infinity, which JSON cannot say."""
    return min(value, sys.float_info.max)
