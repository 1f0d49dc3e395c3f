"""Finding concepts in unlabelled data: groups of one encoder's features, named and counted.

Shape suffixes as in clusters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from perdure.content import digest_json
from perdure.errors import RequestError
from perdure.measuring.clusters import (
    Floats,
    Groups,
    Labels,
    Stability,
    chosen_count,
    directions,
    grouped,
    nearest_words,
    row_weights,
    shares,
    spherical_kmeans,
    stability,
    typical,
)
from perdure.measuring.concept_features import BATCH, Reading
from perdure.measuring.concept_pictures import TEXT_LIMIT as _EXAMPLE_LIMIT
from perdure.measuring.concept_pictures import thumbnail
from perdure.measuring.concept_probes import unit_rows
from perdure.measuring.watched import Discovery, FoundConcept, Marks, TriedCount
from perdure.models.encoders import TEMPLATES, Encoder
from perdure.progress import Progress, counting, silent
from perdure.requests.concepts import Unlabelled

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_NAME_LIMIT = 60
_PICTURES = 3
_WORDS = 3
_STARTS = 5
_FORMAT = 1


class DiscoverySettings(BaseModel):
    """How concepts are looked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: tuple[int, ...] = Field(COUNTS, min_length=1, description="Numbers of clusters to choose from")
    slack: float = Field(0.02, ge=0, description="How far below the most stable number the chosen one may lie")
    draws: int = Field(5, ge=1, description="How often the items are halved to see how stable a number is")
    sample: int = Field(10_000, ge=4, description="Items from which clusters are made, at most; all are assigned")
    least: int = Field(30, ge=10, description="Items that a concept has at least; smaller clusters are dissolved")
    outside: float = Field(0.01, ge=0, lt=1, description="Share of a cluster's own items that is beyond its reach")
    examples: int = Field(5, ge=1, description="Items nearest the centre that are shown")
    seed: int = Field(0, ge=0, description="Of all that is drawn")


@dataclass(frozen=True, eq=False)
class Discovered:
    """Concepts and where they lie.

    Attributes:
        card: All that people read.
        centre_D: The mean direction of all items, which is taken off.
        groups: Their centres and reach, in the order of the card.
        assigned_N: The concept of each item of the data; -1 for none.
    """

    card: Discovery
    centre_D: Floats
    groups: Groups
    assigned_N: Labels

    def assigned(self, features_MD: NDArray[Any]) -> Labels:
        """The concept of other items, by the same encoder's features; -1 for none."""
        return self.groups.assigned(directions(features_MD, self.centre_D))

    def weights(self, marks: Marks | None) -> tuple[float, ...]:
        """How much each item of the data counts where features are held: the weight of its concept, 1 where none is.

        What `perdure.tuning.encoders.tune_encoder` takes as the weights of anchors.
        """
        return row_weights(self.assigned_N, self._marked(marks))

    def protected(self, marks: Marks | None) -> Labels:
        """The places of the items that count more than nothing by their concept's own weight."""
        return np.flatnonzero(
            np.isin(self.assigned_N, [place for place, weight in self._marked(marks).items() if weight])
        )

    def _marked(self, marks: Marks | None) -> dict[int, float]:
        """From the place of a marked concept to its weight."""
        given = marks.weights if marks is not None and marks.key == self.card.key else {}
        places = {each.id: place for place, each in enumerate(self.card.concepts)}
        return {places[name]: weight for name, weight in given.items() if name in places}


def find_concepts(
    encoder: Encoder,
    data: Unlabelled,
    settings: DiscoverySettings | None = None,
    *,
    origin: tuple[str, str] = ("", ""),
    words: Sequence[str] | None = None,
    traffic: Unlabelled | None = None,
    folder: Path | None = None,
    batch: int = BATCH,
    progress: Progress = silent,
) -> Discovered:
    """The concepts in unlabelled data, as this encoder sees it; those that occur most first.

    Args:
        encoder: The reference: the encoder as it is before an update.
        data: The images or texts, with how often each occurs.
        settings: How they are looked for.
        origin: Where the data was read from, and how the encoder was named, to find both again.
        words: Names to choose from; of images with two towers a built-in list when not given.
        traffic: What users ask or send, whose shares count instead of the data's own.
        folder: Where features are kept for the next time; in memory when not given.
        batch: Items of one forward pass; changes no figure.
        progress: Told how far it is.

    Raises:
        RequestError: The encoder does not read such items, or there are too few.
        SettingError: No cluster has enough items.
    """
    chosen = settings or DiscoverySettings()
    for given in (data, traffic):
        _check(encoder, given, data.side)
    _check_enough(data, chosen)
    reading = Reading(encoder, folder, batch=batch, progress=progress)
    features_ND = reading.pooled(data.side, data.items, data.items.digest)
    centre_D = unit_rows(features_ND).mean(0)
    rows_ND = directions(features_ND, centre_D)
    tried, number, groups = _clustered(rows_ND, chosen, progress)
    made = Discovered(_blank(encoder, data, chosen, origin, words, traffic), centre_D, groups, groups.assigned(rows_ND))
    counted = _counted(made, data, traffic, reading)
    return _told(counted, rows_ND, data, (tried, number), _Vocabulary(reading, words))


def key_of(
    encoder: Encoder,
    data: Unlabelled,
    settings: DiscoverySettings,
    words: Sequence[str] | None = None,
    traffic: Unlabelled | None = None,
) -> str:
    """The identity of what `find_concepts` would find, before anything is read."""
    counted = None if traffic is None else traffic.digest
    named = None if words is None else list(words)
    return digest_json([_FORMAT, encoder.digest, data.digest, settings.model_dump(), named, counted])


def built_in_words() -> tuple[str, ...]:
    """Names of everyday things, for images."""
    text = resources.files("perdure.measuring").joinpath("concept_words.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


@dataclass(frozen=True)
class _Vocabulary:
    """Names that concepts may get."""

    reading: Reading
    given: Sequence[str] | None

    def nearest(self, centres_CD: Floats, side: str) -> list[tuple[str, ...]]:
        """The nearest words of each centre; none where the encoder cannot place words beside such items."""
        words = self.given if self.given is not None else built_in_words() if side == "image" else ()
        if len(words) < 2:
            return [() for _ in centres_CD]
        words_WD = self._placed(words, side)
        if words_WD is None:
            return [() for _ in centres_CD]
        found = nearest_words(centres_CD, words_WD, _WORDS)
        return [tuple(words[place] for place in places) for places in found]

    def _placed(self, words: Sequence[str], side: str) -> NDArray[Any] | None:
        """The features of words beside such items; None where the encoder has none."""
        encoder = self.reading.encoder
        if side == "text":
            return self.reading.pooled("text", list(words), digest_json(list(words)))
        if set(encoder.sides) != {"image", "text"} or "text" not in encoder.reading:
            return None
        return self.reading.class_weights(words, TEMPLATES)


def _check(encoder: Encoder, data: Unlabelled | None, side: str) -> None:
    """Raises: RequestError."""
    if data is None:
        return
    if data.side not in encoder.sides or data.side != side:
        read = " and ".join(f"{known}s" for known in encoder.sides)
        raise RequestError(f"{data.name!r} holds {data.side}s; {side}s are looked at, and this encoder reads {read}")


def _check_enough(data: Unlabelled, settings: DiscoverySettings) -> None:
    """Raises: RequestError."""
    if len(data) < 2 * settings.least:
        raise RequestError(
            f"{data.name!r} has {len(data)} different items; concepts of at least {settings.least} items need "
            f"{2 * settings.least}, and better thousands. Give more, or a smaller least"
        )


def _clustered(rows_ND: Floats, settings: DiscoverySettings, progress: Progress) -> tuple[list[Stability], int, Groups]:
    order = np.random.default_rng(settings.seed).permutation(len(rows_ND))
    sample_ND = rows_ND[np.sort(order[: settings.sample])]
    counts = sorted({count for count in settings.counts if count <= len(sample_ND) // settings.least} or {2})
    done = counting(progress, "numbers of clusters", len(counts))
    tried = []
    for count in counts:
        tried.append(stability(sample_ND, count, draws=settings.draws, seed=settings.seed))
        done(1)
    number = chosen_count(tried, settings.slack)
    centres_CD = spherical_kmeans(sample_ND, number, seed=settings.seed, starts=_STARTS)
    return tried, number, grouped(rows_ND, centres_CD, least=settings.least, outside=settings.outside)


def _blank(
    encoder: Encoder,
    data: Unlabelled,
    settings: DiscoverySettings,
    origin: tuple[str, str],
    words: Sequence[str] | None,
    traffic: Unlabelled | None,
) -> Discovery:
    """What is known before anything is found."""
    return Discovery(
        key=key_of(encoder, data, settings, words, traffic),
        source=data.name,
        path=origin[0],
        model=origin[1],
        side=data.side,
        data=data.items.digest,
        encoder=encoder.digest,
        settings=settings.model_dump(mode="json"),
        tried=(),
        clusters=0,
        concepts=(),
        unknown=0.0,
        counted="" if traffic is None else traffic.name,
    )


def _counted(made: Discovered, data: Unlabelled, traffic: Unlabelled | None, reading: Reading) -> Discovered:
    """With the groups in the order of their share, and the share that lies in none."""
    count = len(made.groups.centres_CD)
    if traffic is None:
        share_C = shares(made.assigned_N, data.weights_N, count)
    else:
        asked_N = made.assigned(reading.pooled(traffic.side, traffic.items, traffic.items.digest))
        share_C = shares(asked_N, traffic.weights_N, count)
    order = np.argsort(-share_C, kind="stable")
    rank_C = np.empty(count + 1, np.int64)
    rank_C[order], rank_C[-1] = np.arange(count), -1  # the last place is that of no group
    concepts = tuple(
        FoundConcept(id=f"c{rank + 1}", name="", examples=(), items=int((made.assigned_N == group).sum()),
                     share=min(1.0, float(share_C[group]))) for rank, group in enumerate(order)
    )  # fmt: skip
    unknown = min(1.0, max(0.0, 1.0 - float(share_C.sum())))
    return replace(
        made,
        card=made.card.model_copy(update={"concepts": concepts, "unknown": unknown}),
        groups=Groups(made.groups.centres_CD[order], made.groups.reach_C[order]),
        assigned_N=rank_C[made.assigned_N],
    )


def _told(
    made: Discovered, rows_ND: Floats, data: Unlabelled, tried: tuple[Sequence[Stability], int], vocabulary: _Vocabulary
) -> Discovered:
    """With names, examples and the numbers that were tried."""
    words = vocabulary.nearest(made.groups.centres_CD, data.side)
    count = int(made.card.settings["examples"])
    concepts = []
    for place, (given, near) in enumerate(zip(made.card.concepts, words, strict=True)):
        nearest = typical(rows_ND, made.assigned_N, made.groups.centres_CD[place], place, count)
        texts, pictures = _shown(data, nearest)
        name = near[0] if near else texts[0] if data.side == "text" else f"like {texts[0]}"
        told = {"name": _cut(name, _NAME_LIMIT), "words": near, "examples": texts, "pictures": pictures}
        concepts.append(given.model_copy(update=told))
    found = tuple(TriedCount(clusters=each.clusters, stability=each.value, low=each.low) for each in tried[0])
    card = made.card.model_copy(update={"concepts": _named_apart(concepts), "tried": found, "clusters": tried[1]})
    return replace(made, card=card)


def _shown(data: Unlabelled, places: Sequence[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The items nearest the centre as texts, or as the places and small pictures of images."""
    if data.side == "text":
        return tuple(_cut(data.items[place], _EXAMPLE_LIMIT) for place in places), ()
    pictures = tuple(thumbnail(data.items[place]) for place in places[:_PICTURES])
    return tuple(data.items.places[place] for place in places), pictures


def _named_apart(concepts: Sequence[FoundConcept]) -> tuple[FoundConcept, ...]:
    """Names that tell concepts apart: those of several carry the id."""
    often = Counter(given.name for given in concepts)
    return tuple(
        given if often[given.name] == 1 else given.model_copy(update={"name": f"{given.name} ({given.id})"})
        for given in concepts
    )


def _cut(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
