"""Neurons of an MLP as rows of numbers: unit i with everything that it reads and writes, or single matrix rows.

Shape suffixes: O outputs and I inputs of a projection, U units of the MLP, N neurons, D numbers of one neuron.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perdure.models import Layout, Projection

Kind = Literal["unit", "row"]


@dataclass(frozen=True)
class Neurons:
    """Neurons that are judged together.

    Attributes:
        layer: The decoder block.
        matrices: The projections that they lie in.
        out: The projection that reads the units, where a neuron is a unit; None where it is one matrix's row.
    """

    layer: int
    matrices: tuple[Projection, ...]
    out: Projection | None

    @property
    def count(self) -> int:
        """How many neurons."""
        return self.out.d_in if self.out else self.matrices[0].d_out

    @property
    def label(self) -> str:
        """What these neurons are called: the layer, and the matrix where they are its rows."""
        return f"layer {self.layer}" if self.out else self.matrices[0].name.removesuffix(".weight")

    def rows(self, changes: Mapping[str, Tensor]) -> Tensor:
        """The change of each neuron, [N, D], from the changes of the matrices as they are stored."""
        parts = []
        for matrix in self.matrices:
            change_OI = changes[matrix.name].T if matrix.transposed else changes[matrix.name]
            parts.append(self._spread(matrix, change_OI))
        return torch.cat(parts, 1)

    def matrices_of(self, rows_ND: Tensor) -> dict[str, Tensor]:
        """The changes of the matrices, as they are stored, whose `rows` these are."""
        found, start = {}, 0
        for matrix in self.matrices:
            stop = start + matrix.d_out * matrix.d_in // len(rows_ND)
            change_OI = self._gather(matrix, rows_ND[:, start:stop])
            found[matrix.name] = (change_OI.T if matrix.transposed else change_OI).contiguous()
            start = stop
        return found

    def sums(self, name: str, change: Tensor) -> Tensor:
        """The sum over what belongs to each neuron in one matrix, [N], of numbers of that matrix as it is stored."""
        matrix = next(part for part in self.matrices if part.name == name)
        return self._spread(matrix, change.T if matrix.transposed else change).sum(1)

    def places(self, name: str, chosen_N: Tensor) -> Tensor:
        """Which numbers of one matrix, as it is stored, belong to the chosen neurons: bool, one row or column wide."""
        matrix = next(part for part in self.matrices if part.name == name)
        found = chosen_N[None, :] if self.out is matrix else chosen_N.repeat(matrix.d_out // len(chosen_N))[:, None]
        return found.T if matrix.transposed else found

    def _spread(self, matrix: Projection, change_OI: Tensor) -> Tensor:
        """What belongs to each neuron: a column where the units are read, a row (or several) where they are made."""
        if self.out is None:
            return change_OI
        if matrix is self.out:
            return change_OI.T
        # Gate and up in one matrix: unit i is row i of each half.
        halves_HNI = change_OI.reshape(-1, self.out.d_in, change_OI.shape[1])
        return halves_HNI.transpose(0, 1).flatten(1)

    def _gather(self, matrix: Projection, part_ND: Tensor) -> Tensor:
        if self.out is None:
            return part_ND
        if matrix is self.out:
            return part_ND.T
        units_NHI = part_ND.reshape(part_ND.shape[0], -1, matrix.d_in)
        return units_NHI.transpose(0, 1).flatten(0, 1)


def neurons_of(layout: Layout, layers: Sequence[int], kind: Kind) -> list[Neurons]:
    """The groups of neurons of these layers: one a layer for units, one a matrix for rows."""
    if kind == "unit":
        return [_units(layout, layer) for layer in layers]
    return [Neurons(layer, (matrix,), None) for layer in layers for matrix in layout.mlp_matrices[layer]]


def _units(layout: Layout, layer: int) -> Neurons:
    matrices = layout.mlp_matrices[layer]
    return Neurons(layer, matrices, next(part for part in matrices if part.name == layout.mlp_out[layer].name))
