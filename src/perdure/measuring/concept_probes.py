"""What can be read off frozen features: linear probes, nearest neighbours, zero-shot. Pure functions of arrays.

Shape suffixes: N train rows, M test rows, B rows of a chunk, D feature size, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perdure.errors import SettingError
from perdure.tuning.encoders.probing import STRENGTHS, Floats, Labels, fitted_probe, split_off, unit_rows

__all__ = ["STRENGTHS", "Labels", "Probed", "knn", "linear_probe", "split_off", "unit_rows", "zero_shot"]

_TEMPERATURE = 0.07
_CHUNK = 1024


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


def linear_probe(
    train_ND: Floats,
    labels_N: Labels,
    test_MD: Floats,
    *,
    strengths: Sequence[float] = STRENGTHS,
    validation: float = 0.2,
    seed: int = 0,
) -> Probed:
    """What a multinomial logistic regression on L2-normalised frozen features says of the test rows: `fitted_probe`.

    Raises:
        SettingError: Fewer than two classes, or rows and labels that do not go together.
    """
    _check(train_ND, labels_N, test_MD)
    probe = fitted_probe(train_ND, labels_N, strengths=strengths, validation=validation, seed=seed)
    return Probed(probe.predicted(test_MD), probe.strength, probe.validated)


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
