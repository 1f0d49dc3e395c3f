"""Deltas on a live model: weights are replaced, never written into, so going back is free and exact."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from perdure.deltas import Delta, changed
from perdure.models.layout import tensors_of


def apply_delta(model: Any, delta: Delta) -> None:
    """Replace the changed weights of `model` by weight + change, with the bits that a version would have.

    Raises:
        ModelError: The delta names a tensor that the model does not have.
    """
    for name, parameter in tensors_of(model, list(delta.changes)).items():
        parameter.data = changed(parameter.data, delta.changes[name])


@contextmanager
def restoring(model: Any, names: Iterable[str]) -> Iterator[Mapping[str, Tensor]]:
    """Put the named weights back, the very same tensors, when the block ends; gives those tensors."""
    kept = {name: parameter.data for name, parameter in tensors_of(model, list(names)).items()}
    try:
        yield kept
    finally:
        put_back(model, kept)


def put_back(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Let the model have these very tensors."""
    for name, parameter in tensors_of(model, list(weights)).items():
        parameter.data = weights[name]


@contextmanager
def having(model: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the model has these very tensors."""
    with restoring(model, weights):
        put_back(model, weights)
        yield


@contextmanager
def applied(model: Any, delta: Delta) -> Iterator[None]:
    """While open, the model carries the delta."""
    with restoring(model, delta.changes):
        apply_delta(model, delta)
        yield
