"""Singular values of the base's matrices, each computed once."""

from collections.abc import Sequence
from typing import Any

from perdure.content import digest_tensor
from perdure.deltas import Delta, extremes
from perdure.measuring import measure_matrices
from perdure.measuring.report import MatrixMeasures
from perdure.models.layout import tensors_of


class BaseSpectra:
    """The extreme singular values of a model's own matrices; the model carries no edit while this is asked."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._by_name: dict[str, float] = {}
        self._by_digest: dict[str, tuple[float, float]] = {}

    def ceilings(self, delta: Delta) -> dict[str, float]:
        """σ* = σ_max(W_base) of each matrix that the delta changes."""
        names = [name for name, change in delta.changes.items() if len(change.shape) == 2]
        for name, parameter in tensors_of(self._model, [n for n in names if n not in self._by_name]).items():
            found = extremes(parameter.data)
            self._by_digest[digest_tensor(parameter.data)] = (found.largest, found.smallest)
            self._by_name[name] = found.largest
        return {name: self._by_name[name] for name in names}

    def measures(self, applied: Delta, solved: Delta) -> Sequence[MatrixMeasures]:
        """The spectrum of each changed matrix; of dense changes, the twelve largest beside their matrices."""
        weights = {name: tensor.data for name, tensor in tensors_of(self._model, list(applied.changes)).items()}
        return measure_matrices(weights, applied, solved, self._by_digest.get, self._by_digest.__setitem__)
