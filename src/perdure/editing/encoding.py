"""A trained auto-encoder of updates: the option beside principal directions where those do not lie in a plane.

Shape suffixes: M updates, D numbers of one, H hidden, R codes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 300
_RATE = 3e-3


@dataclass(frozen=True)
class Encoder:
    """A trained encoder.

    Attributes:
        first: [H, D].
        second: [R, H].
        scale: What rows are multiplied by first.
        explained: The share of the squared norm of the rows that the auto-encoder rebuilds.
    """

    first: Tensor
    second: Tensor
    scale: float
    explained: float

    def __call__(self, rows_MD: Tensor) -> Tensor:
        """The codes of rows, [M, R], float64."""
        return _encode(self.first, self.second, (rows_MD.double() * self.scale).float()).double()


def train_encoder(rows_MD: Tensor, size: int, *, seed: int = 0) -> Encoder:
    """An encoder from rows [M, D] to codes [M, R], trained to rebuild these rows from `size` numbers each.

    Two layers each way, D → 4R → R → 4R → D, with tanh between and no biases: the code is then an odd function of
    the row. Equal updates keep an angle of 0° and opposite ones of 180°, and no change stays the origin. Full
    batches, Adam; only `seed` decides the start.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = math.sqrt(size) / float(rows_MD.double().square().sum(1).mean().sqrt().clamp(min=1e-300))
    given_MD, width, hidden = (rows_MD.double() * scale).float(), rows_MD.shape[1], 4 * size
    sizes = [(hidden, width), (size, hidden), (hidden, size), (width, hidden)]
    weights = [torch.randn(o, i, generator=generator).to(rows_MD.device) / math.sqrt(i) for o, i in sizes]
    adam = torch.optim.Adam([weight.requires_grad_(True) for weight in weights], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            adam.zero_grad()
            loss = _lost(weights, given_MD)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    first, second = (weight.detach() for weight in weights[:2])
    return Encoder(first, second, scale, 1 - float(_lost([weight.detach() for weight in weights], given_MD)))


def _encode(first_HD: Tensor, second_RH: Tensor, rows_MD: Tensor) -> Tensor:
    return torch.tanh(rows_MD @ first_HD.T) @ second_RH.T


def _lost(weights: list[Tensor], rows_MD: Tensor) -> Tensor:
    """The share of the squared norm of all rows that is not rebuilt."""
    code_MR = _encode(weights[0], weights[1], rows_MD)
    rebuilt_MD = torch.tanh(code_MR @ weights[2].T) @ weights[3].T
    return (rebuilt_MD - rows_MD).square().sum() / rows_MD.square().sum().clamp(min=1e-30)
