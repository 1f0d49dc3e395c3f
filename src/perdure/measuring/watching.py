"""Whether concepts that were found without labels are still recognised: probes fitted anew on each encoder's features.

The labels are the reference's own groups. A group that a linear probe on the new features tells from the others as
well as one on the old features did is still there, wherever it has moved: linear recoverability, as of Δ_LP.
Shape suffixes: N items, D feature size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from perdure.content import digest_json
from perdure.errors import RequestError, SettingError
from perdure.intervals import NORMAL
from perdure.measuring.clusters import NOWHERE, Labels
from perdure.measuring.compare import compare_hits
from perdure.measuring.concept_drift import MOST, by_item
from perdure.measuring.concept_features import BATCH, Half, Reading
from perdure.measuring.concept_probes import knn, linear_probe
from perdure.measuring.concept_statistics import holm, joint_difference, sign_test
from perdure.measuring.discovery import Discovered
from perdure.measuring.shares import Data, Difference, Estimate
from perdure.measuring.statistics import mean_of
from perdure.measuring.watched import Discovery, FoundConcept, Marks, WatchedConcept, WatchedMeasures
from perdure.models.encoders import Encoder
from perdure.progress import Progress, counting, silent
from perdure.requests.concepts import Unlabelled

_Hits = Sequence[bool]


class WatchSettings(BaseModel):
    """How it is measured whether concepts are still there. Answers compare under the same settings only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(5, ge=2, le=10, description="Parts of the items; each is judged by a probe fitted on the others")
    items: int = Field(100, ge=10, description="Items of each concept, at most")
    strengths: tuple[float, ...] = Field((1.0, 10.0, 100.0), min_length=1, description="C of the probe to choose from")
    neighbours: int = Field(20, ge=1, description="Nearest items that vote")
    seed: int = Field(0, ge=0, description="Of all that is drawn")

    @property
    def digest(self) -> str:
        """The hash that answers carry."""
        return digest_json(self.model_dump())


class WatchAnswers(Data):
    """What one encoder's features say of items whose concepts are known, item by item.

    Attributes:
        settings: The digest of how it was measured.
        key: Of the concepts.
        items: The place of each item in the data.
        labels: Its concept, by the reference.
        linear: The concept that a linear probe says, which has not seen the item.
        neighbours: The concept that the nearest other items say.
    """

    settings: str
    key: str
    items: tuple[int, ...]
    labels: tuple[int, ...]
    linear: tuple[int, ...]
    neighbours: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Watching:
    """One encoder's answers, and its features [N, D] of the same items."""

    answers: WatchAnswers
    features_ND: Half


def watch_encoder(
    encoder: Encoder,
    found: Discovered,
    data: Unlabelled,
    settings: WatchSettings | None = None,
    *,
    known: WatchAnswers | None = None,
    folder: Path | None = None,
    batch: int = BATCH,
    progress: Progress = silent,
) -> Watching:
    """What an encoder's features say of the items of each concept.

    Args:
        encoder: The encoder, before or after an update.
        found: The concepts.
        data: What they were found in.
        settings: How it is measured.
        known: Its answers, where they were kept; no probe is fitted then.
        folder: Where features are kept for the next time; in memory when not given.
        batch: Items of one forward pass; changes no figure.
        progress: Told how far it is.

    Raises:
        RequestError: The data is not what the concepts were found in, or fewer than two concepts were found.
    """
    chosen = settings or WatchSettings()
    check_data(found, data)
    if len(found.card.concepts) < 2:
        raise RequestError("only one concept was found: there is nothing to tell it from. Give more, or other data")
    places = watched_items(found.assigned_N, chosen.items, chosen.seed)
    items = data.items.select(places)
    features_ND = Reading(encoder, folder, batch=batch, progress=progress).pooled(data.side, items, items.digest)
    if known is not None and (known.settings, known.key) == (chosen.digest, found.card.key):
        return Watching(known, features_ND)
    labels_N = found.assigned_N[places]
    linear_N, neighbours_N = cross_validated(features_ND, labels_N, chosen, progress)
    answers = WatchAnswers(
        settings=chosen.digest,
        key=found.card.key,
        items=_numbers(places),
        labels=_numbers(labels_N),
        linear=_numbers(linear_N),
        neighbours=_numbers(neighbours_N),
    )
    return Watching(answers, features_ND)


def check_data(found: Discovered, data: Unlabelled) -> None:
    """Check that this is the data in which concepts were found.

    Raises:
        RequestError: It is other data, or it has changed.
    """
    if data.items.digest != found.card.data or len(data) != len(found.assigned_N):
        raise RequestError(
            f"{data.name!r} is not the data in which the concepts were found ({found.card.path or found.card.source}), "
            "or it has changed since; give that, or find concepts anew"
        )


def watched_items(assigned_N: Labels, limit: int, seed: int) -> Labels:
    """The places of at most `limit` items of each concept, drawn at random; those of no concept are left out."""
    drawn = np.random.default_rng(seed)
    groups = [group for group in np.unique(assigned_N) if group != NOWHERE]
    chosen = [drawn.permutation(np.flatnonzero(assigned_N == group))[:limit] for group in groups]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def cross_validated(
    features_ND: Half, labels_N: Labels, settings: WatchSettings, progress: Progress = silent
) -> tuple[Labels, Labels]:
    """What a linear probe and nearest neighbours say of each item, neither having seen it.

    The parts hold every class in proportion and depend on the labels alone, so that they are the same for every
    encoder. C is chosen within the first part's train items and kept for the others.
    """
    from sklearn.model_selection import StratifiedKFold

    linear_N, neighbours_N = np.empty(len(labels_N), np.int64), np.empty(len(labels_N), np.int64)
    parts = StratifiedKFold(settings.folds, shuffle=True, random_state=settings.seed)
    strengths, done = settings.strengths, counting(progress, "probing concepts", settings.folds)
    for train, test in parts.split(np.zeros(len(labels_N)), labels_N):
        given = (features_ND[train], labels_N[train], features_ND[test])
        probed = linear_probe(*given, strengths=strengths, seed=settings.seed)
        strengths = (probed.strength,)
        linear_N[test] = probed.predicted_M
        neighbours_N[test] = knn(*given, neighbours=settings.neighbours)
        done(1)
    return linear_N, neighbours_N


def build_watched(
    card: Discovery,
    before: Watching,
    after: Watching,
    base: Watching | None = None,
    *,
    marks: Marks | None = None,
) -> WatchedMeasures:
    """What became of each concept.

    Args:
        card: The concepts.
        before: Of the parent.
        after: Of the candidate.
        base: Of the original, where it is not the parent; drift is from it.
        marks: Which concepts somebody protects.

    Raises:
        RequestError: The encoders were asked of other concepts or under other settings.
    """
    models = [each for each in (before, after, base) if each is not None]
    if any((each.answers.key, each.answers.settings, each.answers.items)
           != (card.key, before.answers.settings, before.answers.items) for each in models):  # fmt: skip
        raise RequestError("the encoders were watched on other concepts or under other settings; watch them alike")
    weights = marks.weights if marks is not None and marks.key == card.key else {}
    drawn = _Drawn(before, after, base)
    split = [drawn.hits("linear", place) for place in range(len(card.concepts))]
    chances = holm([sign_test(old, new) for old, new, _ in split])
    concepts = [
        _concept(drawn, given, place, chance, weights, len(split))
        for place, (given, chance) in enumerate(zip(card.concepts, chances, strict=True))
    ]
    share_N = drawn.weights([given.share for given in card.concepts])
    old, new, oldest = drawn.hits("linear")
    return WatchedMeasures(
        source=card.source,
        side=card.side,
        key=card.key,
        concepts=tuple(concepts),
        traffic=weighted_difference(old, new, share_N),
        traffic_against_base=None if oldest is None else weighted_difference(oldest, new, share_N),
        unknown=card.unknown,
        counted=card.counted,
    )


def weighted_difference(before: _Hits, after: _Hits, weights: Sequence[float]) -> Difference:
    """The paired difference of shares, after − before, where items count by weights, with its 95% interval.

    The adjusted Wald interval of Bonett and Price (2012, see `paired_difference`) at the effective number of items
    (Σw)² / Σw² (Kish, Survey Sampling, 1965, section 8.2): with equal weights it is that of `paired_difference`.

    Raises:
        SettingError: The sequences differ in length, or no weight is above 0.
    """
    total = sum(weights)
    if not len(before) == len(after) == len(weights) or total <= 0 or min(weights) < 0:
        raise SettingError(f"{len(before)} and {len(after)} items need as many weights from 0 on, not all 0")
    pairs = list(zip(before, after, (weight / total for weight in weights), strict=True))
    gained = sum(weight for old, new, weight in pairs if new and not old)
    lost = sum(weight for old, new, weight in pairs if old and not new)
    effective = 1 / sum(weight**2 for *_, weight in pairs)
    up, down = (gained * effective + 1) / (effective + 2), (lost * effective + 1) / (effective + 2)
    reach = NORMAL * ((up + down - (up - down) ** 2) / (effective + 2)) ** 0.5
    low, high = max(-1.0, up - down - reach), min(1.0, up - down + reach)
    return Difference(value=gained - lost, low=low, high=high, n=len(pairs))


def distances(reference_ND: Half, now_ND: Half) -> list[float]:
    """How far what a probe reads of each item moved.

    Raises:
        RequestError: The encoders' features have other sizes.
    """
    if reference_ND.shape != now_ND.shape:
        raise RequestError(f"features of {reference_ND.shape} and {now_ND.shape} do not compare; other encoders?")
    return by_item(reference_ND[:, None], now_ND[:, None])


class _Drawn:
    """The watched items, concept by concept."""

    def __init__(self, before: Watching, after: Watching, base: Watching | None) -> None:
        self._models = (before, after, base)
        self.labels_N = np.array(before.answers.labels, np.int64)
        self._moved = distances((base or before).features_ND, after.features_ND)

    def hits(self, way: str, concept: int | None = None) -> tuple[_Hits, _Hits, _Hits | None]:
        """Whether each item, of one concept or of all, is recognised before, after and by the base."""
        before, after, base = (None if model is None else self._right(model, way, concept) for model in self._models)
        assert before is not None and after is not None
        return before, after, base

    def drift(self, concept: int) -> Estimate:
        """How far the items of a concept moved."""
        return mean_of([self._moved[place] for place in np.flatnonzero(self.labels_N == concept)], most=MOST)

    def weights(self, share: Sequence[float]) -> list[float]:
        """What each item stands for: the share of its concept over its watched items."""
        count = np.bincount(self.labels_N, minlength=len(share))
        even = sum(share) <= 0
        return [(1.0 if even else share[label]) / float(count[label]) for label in self.labels_N]

    def _right(self, model: Watching, way: str, concept: int | None) -> list[bool]:
        right_N = np.array(getattr(model.answers, way), np.int64) == self.labels_N
        return [bool(hit) for hit in (right_N if concept is None else right_N[self.labels_N == concept])]


def _concept(
    drawn: _Drawn, given: FoundConcept, place: int, chance: float, weights: dict[str, float], looked_at: int
) -> WatchedConcept:
    old, new, oldest = drawn.hits("linear", place)
    name = f"watched.{given.id}"
    return WatchedConcept(
        concept=given,
        weight=weights.get(given.id, 1.0),
        protected=given.id in weights,
        linear=compare_hits(f"{name}.linear", given.name, "linear probe", (old, new, oldest)),
        neighbours=compare_hits(
            f"{name}.neighbours", given.name, "nearest neighbours", drawn.hits("neighbours", place)
        ),
        jointly=joint_difference(old, new, looked_at),
        chance=chance,
        drift=drawn.drift(place),
    )


def _numbers(values: Labels) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
