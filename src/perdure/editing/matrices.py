"""From the factors of a solve to a delta of the stored tensor."""

from torch import Tensor

from perdure.deltas import Change, Delta, LowRank
from perdure.models import Projection


def matrix_delta(projection: Projection, factors: tuple[Tensor, Tensor], key_IN: Tensor) -> Delta:
    """The delta left [O, N] @ right [N, I] of one projection, with the keys that it was solved on."""
    left, right = projection.stored(*factors)
    change = Change(LowRank(left.float().contiguous(), right.float().contiguous()))
    return Delta({projection.name: change}, {projection.name: key_IN.float()})
