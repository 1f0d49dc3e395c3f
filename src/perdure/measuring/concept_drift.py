"""How far the features of each stage of an encoder are from those of another. Shape suffixes as in concept_features."""

from collections.abc import Mapping

import numpy as np
import torch

from perdure.errors import ModelError
from perdure.measuring.concept_features import Half
from perdure.measuring.concepts import StageDrift
from perdure.measuring.statistics import mean_of
from perdure.tuning.regularizers.feature_distance import standardisation, unit

MOST = 4.0
"""The largest squared distance of two unit vectors."""


def drift_of_stages(reference: Mapping[str, Half], now: Mapping[str, Half]) -> tuple[StageDrift, ...]:
    """The squared distance of unit features, ‖h/‖h‖ − h₀/‖h₀‖‖², by stage; the interval is over the items.

    Mean over the places of an item, then over items: the regularizer feature_distance's measure, standardised by the
    reference where single dimensions are massive. Kept in half precision, compared in single precision.

    Raises:
        ModelError: The two have other stages or sizes.
    """
    if {name: kept.shape for name, kept in reference.items()} != {name: kept.shape for name, kept in now.items()}:
        raise ModelError("features of encoders with other stages or sizes do not compare")
    return tuple(StageDrift(stage=name, distance=mean_of(by_item(reference[name], now[name]), most=MOST))
                 for name in reference)  # fmt: skip


def by_item(reference_MKD: Half, now_MKD: Half) -> list[float]:
    """How far the features of each item moved, in the mean over its places: 0 for equal, 2 for unrelated ones.

    Args:
        reference_MKD: Features as they were; single massive dimensions are standardised by them.
        now_MKD: Features of the same items and places.
    """
    old, new = (torch.from_numpy(np.array(side, np.float32)) for side in (reference_MKD, now_MKD))
    shift_1D, factor_1D = standardisation(old.reshape(-1, 1, old.shape[-1]))
    pair = [unit((side - shift_1D) * factor_1D) for side in (new, old)]
    return [float(value) for value in (pair[0] - pair[1]).square().sum(-1).mean(1)]
