"""A linear probe as weights: multinomial logistic regression on unit features, its strength chosen on held-out rows.

Shape suffixes: N train rows, M other rows, D features, C classes that have rows.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.errors import SettingError

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

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
        labels_C: The number of each class that has rows, ascending.
        strength: The C that was chosen.
        validated: Its accuracy on the held-out rows; NaN where only one was tried.
    """

    weight_CD: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    labels_C: Labels
    strength: float
    validated: float

    def predicted(self, features_MD: Floats) -> Labels:
        """The class of each row, by its number."""
        scores_MC = unit_rows(features_MD) @ self.weight_CD.T + self.bias_C
        return np.asarray(self.labels_C[scores_MC.argmax(1)], np.int64)


def fitted_probe(
    train_ND: Floats,
    labels_N: Labels,
    *,
    strengths: Sequence[float] = STRENGTHS,
    validation: float = 0.2,
    seed: int = 0,
) -> FittedProbe:
    """A multinomial logistic regression on L2-normalised frozen features.

    C is the one of highest accuracy on a validation split (the smallest of equals); the probe is then fitted again on
    all rows. Mukhoti et al., TMLR 2024, section 3, which choose a learning rate in the same way.

    The unit features are centred by their mean and divided by one number, the root of their mean squared distance
    from it, and the weights are given back for unit features as they are. As the intercept is not penalised, this is
    the probe on unit features with C in another unit: one in which the same grid serves features that fill the sphere
    and features that huddle in a narrow cone.

    Args:
        train_ND: What the probe reads.
        labels_N: The class of each row, by its number.
        strengths: The C to choose from.
        validation: The share of rows held out for that.
        seed: Of the split.

    Raises:
        SettingError: Fewer than two classes.
    """
    known_C = np.unique(labels_N)
    if len(known_C) < 2:
        raise SettingError(f"a linear probe needs rows of two classes at least; given {len(known_C)}")
    unit_ND = unit_rows(train_ND)
    centre_D = unit_ND.mean(0)
    spread = max(float(np.sqrt(np.mean(np.sum((unit_ND - centre_D) ** 2, 1)))), _SMALL)
    scaled_ND = (unit_ND - centre_D) / spread
    fit, held = split_off(labels_N, validation, seed)
    tried = sorted(strengths)
    hits = _validated(scaled_ND, labels_N, fit, held, tried) if len(tried) > 1 else [float("nan")]
    chosen = int(np.argmax(hits)) if len(tried) > 1 else 0
    probe = _regression(tried[chosen])
    _fit(probe, scaled_ND, labels_N)
    weight_CD, bias_C = probe.coef_ / spread, probe.intercept_
    if len(known_C) == 2:  # one score z for two classes: −z/2 and z/2
        weight_CD, bias_C = np.concatenate([-weight_CD, weight_CD]) / 2, np.concatenate([-bias_C, bias_C]) / 2
    return FittedProbe(weight_CD, bias_C - weight_CD @ centre_D, known_C, tried[chosen], hits[chosen])


def unit_rows(features_ND: Floats) -> NDArray[np.float64]:
    """Features of length one, float64; a row of zeros stays one."""
    found = np.asarray(features_ND, np.float64)
    unit: NDArray[np.float64] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _SMALL)
    return unit


def split_off(labels_N: Labels, share: float, seed: int) -> tuple[Labels, Labels]:
    """The places of rows that stay and of those split off: a share of each class, at least one row on either side.

    A class of a single row stays whole. The same labels and seed give the same split, whatever the features.
    """
    drawn = np.random.default_rng(seed)
    off: list[Labels] = []
    for label in np.unique(labels_N):
        places = drawn.permutation(np.flatnonzero(labels_N == label))
        count = min(max(1, round(share * len(places))), len(places) - 1)
        off.append(places[:count])
    away = np.sort(np.concatenate(off)) if off else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels_N)), away), away


def _validated(
    train_ND: Floats, labels_N: Labels, fit: Labels, held: Labels, strengths: Sequence[float]
) -> list[float]:
    """The accuracy on held-out rows at each strength, each fit starting from the one before."""
    probe = _regression(strengths[0])
    found = []
    for strength in strengths:
        probe.set_params(C=strength)
        _fit(probe, train_ND[fit], labels_N[fit])
        found.append(float(np.mean(probe.predict(train_ND[held]) == labels_N[held])) if len(held) else 0.0)
    return found


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_STEPS, warm_start=True)


def _fit(probe: Any, features_ND: Floats, labels_N: Labels) -> None:
    """Fitted as far as it goes: at weak penalties the last digits may be missing, which change no prediction."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features_ND, labels_N)
