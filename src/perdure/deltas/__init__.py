"""What a change is: deltas, their algebra, their spectrum, their restraint, their files."""

from perdure.deltas.delta import Change, Delta, LowRank, changed, difference
from perdure.deltas.files import load_delta, save_delta
from perdure.deltas.restraint import PruneConfig, contract, prune
from perdure.deltas.spectrum import Extremes, compress, decompose, extremes, largest_singular_value, singular_values

__all__ = [
    "Change",
    "Delta",
    "Extremes",
    "LowRank",
    "PruneConfig",
    "changed",
    "compress",
    "contract",
    "decompose",
    "difference",
    "extremes",
    "largest_singular_value",
    "load_delta",
    "prune",
    "save_delta",
    "singular_values",
]
