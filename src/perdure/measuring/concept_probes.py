"""What can be read off frozen features: linear probes, nearest neighbours, zero-shot. Pure functions of arrays.

Shape suffixes: N train rows, M test rows, B rows of a chunk, D feature size, C classes.
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
_TEMPERATURE = 0.07
_CHUNK = 1024
_SMALL = 1e-12


@dataclass(frozen=True)
class Probed:
    """What a linear probe says.

    Attributes:
        predicted_M: The class of each test row, by its number.
        strength: The C that was chosen.
        validated: Its accuracy on the validation rows.
    """

    predicted_M: Labels
    strength: float
    validated: float


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


def linear_probe(
    train_ND: Floats,
    labels_N: Labels,
    test_MD: Floats,
    *,
    strengths: Sequence[float] = STRENGTHS,
    validation: float = 0.2,
    seed: int = 0,
) -> Probed:
    """A multinomial logistic regression on L2-normalised frozen features, and what it says of the test rows.

    C is the one of highest accuracy on a validation split (the smallest of equals); the probe is then fitted again on
    all train rows. Mukhoti et al., TMLR 2024, section 3, which choose a learning rate in the same way.

    The unit features are centred by the train rows' mean and divided by one number, the root of their mean squared
    distance from it. As the intercept is not penalised, this is the probe on unit features with C in another unit:
    one in which the same grid serves features that fill the sphere and features that huddle in a narrow cone.

    Raises:
        SettingError: Fewer than two classes, or rows and labels that do not go together.
    """
    _check(train_ND, labels_N, test_MD)
    known = np.unique(labels_N)
    if len(known) < 2:
        raise SettingError(f"a linear probe needs rows of two classes at least; given {len(known)}")
    train, test = _spread(unit_rows(train_ND), unit_rows(test_MD))
    fit, held = split_off(labels_N, validation, seed)
    tried = sorted(strengths)
    hits = _validated(train, labels_N, fit, held, tried) if len(tried) > 1 else [float("nan")]
    chosen = int(np.argmax(hits)) if len(tried) > 1 else 0
    probe = _regression(tried[chosen], seed)
    _fit(probe, train, labels_N)
    return Probed(np.asarray(probe.predict(test), np.int64), tried[chosen], hits[chosen])


def _validated(
    train_ND: Floats, labels_N: Labels, fit: Labels, held: Labels, strengths: Sequence[float]
) -> list[float]:
    """The accuracy on held-out rows at each strength, each fit starting from the one before."""
    probe = _regression(strengths[0], 0)
    found = []
    for strength in strengths:
        probe.set_params(C=strength)
        _fit(probe, train_ND[fit], labels_N[fit])
        found.append(float(np.mean(probe.predict(train_ND[held]) == labels_N[held])))
    return found


def _regression(strength: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_STEPS, random_state=seed, warm_start=True)


def _fit(probe: Any, features_ND: Floats, labels_N: Labels) -> None:
    """Fitted as far as it goes: at weak penalties the last digits may be missing, which change no prediction."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features_ND, labels_N)


def _spread(train_ND: Floats, test_MD: Floats) -> tuple[Floats, Floats]:
    """Both sides, centred by the train rows' mean, in units of their root mean squared distance from it."""
    centre_D = train_ND.mean(0)
    scale = float(np.sqrt(np.mean(np.sum((train_ND - centre_D) ** 2, 1))))
    return (train_ND - centre_D) / max(scale, _SMALL), (test_MD - centre_D) / max(scale, _SMALL)


def knn(
    train_ND: Floats, labels_N: Labels, test_MD: Floats, *, neighbours: int = 20, temperature: float = _TEMPERATURE
) -> Labels:
    """The class of each test row by its nearest train rows, weighed by exp(cosine / temperature).

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4.
    Nothing is trained: it asks only which features lie beside each other. Of equals the first class counts.
    """
    _check(train_ND, labels_N, test_MD)
    train, test = unit_rows(train_ND), unit_rows(test_MD)
    count = min(neighbours, len(train))
    found = np.empty(len(test), np.int64)
    for start in range(0, len(test), _CHUNK):
        cosines_BN = test[start : start + _CHUNK] @ train.T
        near = np.argsort(-cosines_BN, axis=1, kind="stable")[:, :count]
        cosines = np.take_along_axis(cosines_BN, near, 1)
        votes_BC = np.zeros((len(near), int(labels_N.max()) + 1))
        weights = np.exp((cosines - cosines[:, :1]) / temperature)
        np.add.at(votes_BC, (np.arange(len(near))[:, None], labels_N[near]), weights)
        found[start : start + _CHUNK] = votes_BC.argmax(1)
    return found


def zero_shot(test_MD: Floats, classes_CD: Floats) -> Labels:
    """The class whose weights, such as the embedding of its prompts, have the largest cosine with each test row.

    Raises:
        SettingError: The two have other sizes.
    """
    if test_MD.shape[1] != classes_CD.shape[1]:
        raise SettingError(f"features of size {test_MD.shape[1]} and class weights of {classes_CD.shape[1]} do not fit")
    return np.asarray((unit_rows(test_MD) @ unit_rows(classes_CD).T).argmax(1), np.int64)


def _check(train_ND: Floats, labels_N: Labels, test_MD: Floats) -> None:
    if train_ND.ndim != 2 or test_MD.ndim != 2 or train_ND.shape[1] != test_MD.shape[1]:
        raise SettingError(f"features must be rows of one size; given {train_ND.shape} and {test_MD.shape}")
    if len(train_ND) != len(labels_N) or not len(labels_N):
        raise SettingError(f"every train row needs a label; given {len(train_ND)} rows and {len(labels_N)} labels")
