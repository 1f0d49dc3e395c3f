"""A linear probe as weights: multinomial logistic regression on unit features, its strength chosen on held-out rows.

Shape suffixes: N train rows, D features, C classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.errors import SettingError

Floats = NDArray[np.float64]

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse strengths C of the penalty that are tried, in units of the features' spread."""
_STEPS = 1000
_SMALL = 1e-12


@dataclass(frozen=True)
class FittedProbe:
    """A linear probe of unit features.

    Attributes:
        weight_CD: Of unit features, as they are.
        bias_C: What is added.
        strength: The C that was chosen.
    """

    weight_CD: Floats
    bias_C: Floats
    strength: float


def fitted_probe(features_ND: Floats, labels: Sequence[int], classes: int, *, seed: int = 0) -> FittedProbe:
    """The probe of highest accuracy on a fifth of the rows (the weakest C of equals), fitted again on all.

    Features are brought to length one, centred and divided by one number, the root of their mean squared distance
    from the centre, so that one grid of C serves all; the weights are given back for unit features as they are. The
    intercept is not penalised, so centring changes nothing but the conditioning.

    Args:
        features_ND: What the probe reads.
        labels: The class of each row, by its number.
        classes: How many classes there are.
        seed: Of the split.

    Raises:
        SettingError: A class has no rows.
    """
    labels_N = np.asarray(labels, np.int64)
    missing = sorted(set(range(classes)) - set(labels_N.tolist()))
    if missing or classes < 2:
        raise SettingError(f"a linear probe needs rows of two classes at least and of each; none of {missing[:5]}")
    unit_ND = features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), _SMALL)
    centre_D = unit_ND.mean(0)
    spread = max(float(np.sqrt(np.mean(np.sum((unit_ND - centre_D) ** 2, 1)))), _SMALL)
    scaled_ND = (unit_ND - centre_D) / spread
    strength = _chosen(scaled_ND, labels_N, seed)
    probe = _fitted(_regression(strength), scaled_ND, labels_N)
    weight_CD, bias_C = probe.coef_ / spread, probe.intercept_
    if classes == 2:  # one score z for two classes: −z/2 and z/2
        weight_CD, bias_C = np.concatenate([-weight_CD, weight_CD]) / 2, np.concatenate([-bias_C, bias_C]) / 2
    return FittedProbe(weight_CD, bias_C - weight_CD @ centre_D, strength)


def _chosen(scaled_ND: Floats, labels_N: NDArray[np.int64], seed: int) -> float:
    drawn = np.random.default_rng(seed)
    held_N = np.zeros(len(labels_N), bool)
    for label in np.unique(labels_N):
        places = drawn.permutation(np.flatnonzero(labels_N == label))
        held_N[places[: min(max(1, round(0.2 * len(places))), len(places) - 1)]] = True
    if not held_N.any():
        return 1.0
    probe, best = _regression(STRENGTHS[0]), (-1.0, 1.0)
    for strength in STRENGTHS:
        _fitted(probe.set_params(C=strength), scaled_ND[~held_N], labels_N[~held_N])
        hits = float(np.mean(probe.predict(scaled_ND[held_N]) == labels_N[held_N]))
        best = max(best, (hits, strength), key=lambda each: each[0])
    return best[1]


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_STEPS, warm_start=True)


def _fitted(probe: Any, scaled_ND: Floats, labels_N: NDArray[np.int64]) -> Any:
    """Fitted as far as it goes: at weak penalties the last digits may be missing."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(scaled_ND, labels_N)
