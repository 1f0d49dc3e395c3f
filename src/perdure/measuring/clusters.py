"""Clusters of features, and how many: spherical k-means, stability under resampling. Pure functions of arrays.

Shape suffixes: N rows, M rows of other items, D feature size, C clusters or concepts, W words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.errors import SettingError
from perdure.measuring.concept_probes import unit_rows

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

NOWHERE = -1
"""The label of an item that lies in no concept."""
_ROUNDS = 100
_CHUNK = 4096


@dataclass(frozen=True)
class Stability:
    """How far two halves of the items agree on `clusters` clusters.

    Attributes:
        clusters: How many were looked for.
        value: The mean adjusted Rand index over the draws: 1 for the same clusters, 0 for chance.
        low: The smallest of the draws.
    """

    clusters: int
    value: float
    low: float


def directions(features_ND: NDArray[Any], centre_D: Floats | None = None) -> Floats:
    """Features of length one, less the mean direction of a reference, of length one again; float64.

    Features of a network lie in a narrow cone (Ethayarajh, EMNLP 2019), of language models above all: what they have in
    common says nothing of what tells them apart. Without a centre they are only brought to length one.
    """
    found = unit_rows(features_ND)
    return found if centre_D is None else unit_rows(found - centre_D)


def spherical_kmeans(rows_ND: Floats, clusters: int, *, seed: int = 0, starts: int = 1) -> Floats:
    """Centres [C, D] of length one that maximise the sum of each row's cosine with the nearest.

    Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data Using Clustering", Machine Learning 42
    (2001). Started from k-means of scikit-learn, whose centres lie within the sphere.

    Args:
        rows_ND: Rows of length one.
        clusters: How many; at most as many as there are different rows.
        seed: Of the starts.
        starts: How many starts are made; the best of them counts.

    Raises:
        SettingError: Fewer rows than clusters.
    """
    from sklearn.cluster import KMeans

    if not 1 <= clusters <= len(rows_ND):
        raise SettingError(f"{clusters} clusters of {len(rows_ND)} rows: there must be as many rows at least")
    begun = KMeans(clusters, n_init=starts, random_state=seed).fit(rows_ND)
    centres_CD = unit_rows(begun.cluster_centers_)
    assigned_N = nearest(rows_ND, centres_CD)[0]
    for _ in range(_ROUNDS):
        centres_CD = means(rows_ND, assigned_N, centres_CD)
        moved_N = nearest(rows_ND, centres_CD)[0]
        if np.array_equal(moved_N, assigned_N):
            break
        assigned_N = moved_N
    return centres_CD


def means(rows_ND: Floats, assigned_N: Labels, centres_CD: Floats) -> Floats:
    """The mean direction of each cluster's rows; a cluster without rows stays where it was."""
    sums_CD = np.zeros_like(centres_CD)
    np.add.at(sums_CD, assigned_N, rows_ND)
    empty_C = np.bincount(assigned_N, minlength=len(centres_CD)) == 0
    sums_CD[empty_C] = centres_CD[empty_C]
    return unit_rows(sums_CD)


def nearest(rows_MD: Floats, centres_CD: Floats) -> tuple[Labels, Floats]:
    """The nearest centre of each row, and the cosine with it."""
    found, cosines = np.empty(len(rows_MD), np.int64), np.empty(len(rows_MD))
    for start in range(0, len(rows_MD), _CHUNK):
        part_MC = rows_MD[start : start + _CHUNK] @ centres_CD.T
        best = part_MC.argmax(1)
        found[start : start + _CHUNK] = best
        cosines[start : start + _CHUNK] = np.take_along_axis(part_MC, best[:, None], 1)[:, 0]
    return found, cosines


def adjusted_rand(first_N: Labels, second_N: Labels) -> float:
    """The adjusted Rand index of two clusterings of the same rows: 1 for the same, about 0 for unrelated ones.

    Hubert and Arabie, "Comparing partitions", Journal of Classification 2 (1985).
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(first_N, second_N))


def stability(rows_ND: Floats, clusters: int, *, draws: int = 5, seed: int = 0) -> Stability:
    """How far clusters found in one half of the rows say the same of all rows as those found in the other half.

    Both sets of centres assign every row, and the two assignments are compared (after Lange, Roth, Braun and Buhmann,
    "Stability-Based Validation of Clustering Solutions", Neural Computation 16, 2004; the adjusted Rand index
    takes the place of their normalised distance).
    """
    found = []
    for draw in range(draws):
        order = np.random.default_rng((seed, draw)).permutation(len(rows_ND))
        halves = np.array_split(order, 2)
        pair = [nearest(rows_ND, spherical_kmeans(rows_ND[np.sort(half)], clusters, seed=draw))[0] for half in halves]
        found.append(adjusted_rand(*pair))
    return Stability(clusters, float(np.mean(found)), min(found))


def chosen_count(found: Sequence[Stability], slack: float = 0.02) -> int:
    """The largest number of clusters that, in its worst draw, is as stable as any other in its worst, up to `slack`.

    The worst draw counts, not the mean: few clusters can often be drawn in several ways that are equally good, and
    then halves agree wholly in one draw and hardly in the next. Where the items fall into few clear groups, more
    clusters cut these at will, which two halves do not do alike. Of about equally stable numbers the finest grouping
    is taken: it watches most.

    Raises:
        SettingError: Nothing was tried.
    """
    if not found:
        raise SettingError("no number of clusters was tried")
    best = max(each.low for each in found)
    return max(each.clusters for each in found if each.low >= best - slack)


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of items, and how far each reaches.

    Attributes:
        centres_CD: Their mean directions, of length one.
        reach_C: The smallest cosine with the centre at which an item still belongs.
    """

    centres_CD: Floats
    reach_C: Floats

    def assigned(self, rows_MD: Floats) -> Labels:
        """The group of each row: that of the nearest centre, if the row is within its reach; else `NOWHERE`."""
        found, cosines = nearest(rows_MD, self.centres_CD)
        return np.where(cosines >= self.reach_C[found], found, NOWHERE)


def grouped(rows_ND: Floats, centres_CD: Floats, *, least: int, outside: float = 0.01) -> Groups:
    """The groups around centres; groups of fewer than `least` rows are dissolved.

    A group reaches as far as its own rows do, but for the share `outside` that is furthest away: what lies further
    is unknown. A row of a dissolved group belongs to the nearest group left, if that reaches so far.

    Raises:
        SettingError: No group has so many rows.
    """
    first_N, cosines_N = nearest(rows_ND, centres_CD)
    large = [place for place in range(len(centres_CD)) if int((first_N == place).sum()) >= least]
    if not large:
        most = int(np.bincount(first_N).max())
        raise SettingError(f"no group has {least} items, the largest has {most}; give more items or a smaller least")
    reach = [float(np.quantile(cosines_N[first_N == place], outside)) for place in large]
    return Groups(centres_CD[large], np.array(reach))


def shares(assigned_N: Labels, weights_N: NDArray[Any], groups: int) -> Floats:
    """The share of the weights in each group [C]; what they lack to 1 lies in none."""
    inside = assigned_N != NOWHERE
    held_C = np.bincount(assigned_N[inside], np.asarray(weights_N, np.float64)[inside], groups)
    found: Floats = held_C / max(float(np.sum(weights_N)), 1e-300)
    return found


def typical(rows_ND: Floats, assigned_N: Labels, centre_D: Floats, group: int, count: int) -> list[int]:
    """The places of the `count` rows of a group nearest its centre, the nearest first."""
    places = np.flatnonzero(assigned_N == group)
    return [int(place) for place in places[np.argsort(-(rows_ND[places] @ centre_D), kind="stable")[:count]]]


def nearest_words(centres_CD: Floats, words_WD: NDArray[Any], count: int) -> list[list[int]]:
    """The places of the `count` words nearest each centre, the nearest first.

    Words are centred by their own mean, as the items were by theirs: embeddings of texts and of images lie in two
    narrow cones apart from each other (Liang et al., "Mind the Gap", NeurIPS 2022), which says nothing of either.
    """
    words = unit_rows(words_WD)
    cosines_CW = centres_CD @ unit_rows(words - words.mean(0)).T
    return [[int(place) for place in row[:count]] for row in np.argsort(-cosines_CW, axis=1, kind="stable")]


def row_weights(assigned_N: Sequence[int] | Labels, protected: Mapping[int, float]) -> tuple[float, ...]:
    """How much each row counts in a regularizer that holds features: the weight of its group, 1 where none is set.

    Args:
        assigned_N: The group of each row; `NOWHERE` for none.
        protected: From a protected group to its weight.

    Raises:
        SettingError: A weight is negative or not finite.
    """
    wrong = [weight for weight in protected.values() if not 0 <= weight < float("inf")]
    if wrong:
        raise SettingError(f"a weight of {wrong[0]} was given; it must be a number from 0 on")
    return tuple(float(protected.get(int(group), 1.0)) for group in assigned_N)
