"""Probing an encoder: what its frozen features say of labelled sets, through probes that never touch its weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from perdure.content import digest_json
from perdure.errors import RequestError
from perdure.measuring.concept_drift import drift_of_stages
from perdure.measuring.concept_features import BATCH, Half, Reading
from perdure.measuring.concept_measures import build_concepts
from perdure.measuring.concept_probes import STRENGTHS, Labels, knn, linear_probe, split_off, zero_shot
from perdure.measuring.concepts import ConceptAnswers, ConceptMeasures, SetAnswers
from perdure.models.encoders import TEMPLATES, Encoder, Template
from perdure.progress import Progress, silent
from perdure.requests.concepts import Labelled, Probe
from perdure.tuning.encoders.heads import Head


class ConceptSettings(BaseModel):
    """How encoders are probed. Answers compare under the same settings only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strengths: tuple[float, ...] = Field(
        STRENGTHS, min_length=1, description="Inverse penalties C of the linear probe to choose from"
    )
    validation: float = Field(0.2, gt=0, lt=1, description="Share of the train items on which C is chosen")
    neighbours: int = Field(20, ge=1, description="Nearest train items that vote")
    prompts: tuple[Template, ...] = Field(
        TEMPLATES, min_length=1, description="Texts around a class's name, for zero-shot"
    )
    train_items: int = Field(10_000, ge=2, description="Train items of a set at most, the classes in proportion")
    test_items: int = Field(5_000, ge=1, description="Test items of a set at most, the classes in proportion")
    drift_items: int = Field(128, ge=0, description="Test items on which the drift of each stage is measured")
    places: int = Field(8, ge=1, description="Tokens, or places of a map, that are kept of each of them")
    seed: int = Field(0, ge=0, description="Of all that is drawn")

    @property
    def digest(self) -> str:
        """The hash that answers carry."""
        return digest_json(self.model_dump())


@dataclass(frozen=True)
class Probings:
    """What one encoder's features say, and the features of its stages by the set's digest, for drift."""

    answers: ConceptAnswers
    stages: Mapping[str, Mapping[str, Half]] = field(default_factory=dict)


def probe_encoder(
    encoder: Encoder,
    probes: Sequence[Probe],
    settings: ConceptSettings | None = None,
    *,
    heads: Mapping[str, Head] | None = None,
    folder: Path | None = None,
    batch: int = BATCH,
    progress: Progress = silent,
) -> Probings:
    """What an encoder's frozen features say of labelled sets; every item is read once, by content ever.

    Args:
        encoder: The encoder; its weights stay as they are.
        probes: The labelled sets.
        settings: How it is probed.
        heads: The encoder's own heads, by the digest of the set that each learnt.
        folder: Where features are kept for the next time; in memory when not given.
        batch: Items of one forward pass; changes no figure.
        progress: Told of items that are read.

    Raises:
        RequestError: The encoder does not read what a set holds, or two sets are the same.
    """
    chosen = settings or ConceptSettings()
    _check(encoder, probes)
    reading, own = Reading(encoder, folder, batch=batch, progress=progress), heads or {}
    return Probings(
        ConceptAnswers(
            settings=chosen.digest,
            sets={probe.digest: _answers(reading, probe, chosen, own.get(probe.digest)) for probe in probes},
        ),
        {probe.digest: _stages(reading, probe, chosen) for probe in probes} if chosen.drift_items else {},
    )


def chosen_items(labelled: Labelled, limit: int, seed: int) -> Labels:
    """The places of about `limit` items at most, each class in proportion; a class of a single item is left out."""
    if len(labelled) <= limit:
        return np.arange(len(labelled))
    return split_off(labelled.labels_N, limit / len(labelled), seed)[1]


def _answers(reading: Reading, probe: Probe, settings: ConceptSettings, head: Head | None) -> SetAnswers:
    train = probe.train.select(chosen_items(probe.train, settings.train_items, settings.seed))
    places = chosen_items(probe.test, settings.test_items, settings.seed)
    test = probe.test.select(places)
    train_ND, test_MD = (reading.pooled(probe.side, part.items, part.items.digest) for part in (train, test))
    linear = linear_probe(
        train_ND,
        train.labels_N,
        test_MD,
        strengths=settings.strengths,
        validation=settings.validation,
        seed=settings.seed,
    )
    classes_CD = reading.class_weights(probe.classes, settings.prompts) if _has_names(reading.encoder, probe) else None
    return SetAnswers(
        name=probe.name,
        side=probe.side,
        classes=probe.classes,
        items=_numbers(places),
        labels=_numbers(test.labels_N),
        linear=_numbers(linear.predicted_M),
        neighbours=_numbers(knn(train_ND, train.labels_N, test_MD, neighbours=settings.neighbours)),
        zero_shot=None if classes_CD is None else _numbers(zero_shot(test_MD, classes_CD)),
        head=None if head is None else _headed(head, probe, test_MD),
        train=len(train),
        strength=linear.strength,
    )


def _headed(head: Head, probe: Probe, test_MD: Half) -> tuple[int, ...]:
    """The class that a head says of each test item, by its number in the set; -1 for one that the set does not have."""
    places = {name: place for place, name in enumerate(probe.classes)}
    said = head.logits(torch.from_numpy(np.asarray(test_MD, np.float32))).argmax(1).tolist()
    return tuple(places.get(head.classes[place], -1) for place in said)


def _stages(reading: Reading, probe: Probe, settings: ConceptSettings) -> dict[str, Half]:
    chosen = chosen_items(probe.test, settings.test_items, settings.seed)
    step = max(1, len(chosen) // settings.drift_items)
    items = probe.test.items.select(chosen[::step][: settings.drift_items])
    return reading.staged(probe.side, items, items.digest, places=settings.places, seed=settings.seed)


def _has_names(encoder: Encoder, probe: Probe) -> bool:
    """Whether classes can be recognised by their names: images, beside a tower that reads texts."""
    return probe.side == "image" and set(encoder.sides) == {"image", "text"} and "text" in encoder.reading


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _check(encoder: Encoder, probes: Sequence[Probe]) -> None:
    """Raises: RequestError."""
    for probe in probes:
        if probe.side not in encoder.sides:
            read = " and ".join(f"{side}s" for side in encoder.sides)
            raise RequestError(f"the set {probe.name!r} holds {probe.side}s; this encoder reads {read}")
    digests = [probe.digest for probe in probes]
    twice = [probe.name for probe in probes if digests.count(probe.digest) > 1]
    if twice:
        raise RequestError(f"the sets {', '.join(map(repr, twice))} are the same; leave all but one out")


def compare_probings(
    before: Probings,
    after: Probings,
    base: Probings | None = None,
    *,
    probes: Sequence[Probe] = (),
    tuned_on: Collection[str] = (),
) -> ConceptMeasures | None:
    """What is recognised before and after, with the drift of every stage from the original; None without sets.

    Args:
        before: Of the parent.
        after: Of the candidate.
        base: Of the original, where it is not the parent.
        probes: The sets, for examples of what was lost.
        tuned_on: Digests of the sets that the encoder was tuned on: left out of every mean.

    Raises:
        RequestError: The encoders were probed on other sets or under other settings.
        ModelError: They have other stages.
    """
    first = base or before
    drift = {
        digest: drift_of_stages(first.stages[digest], now) for digest, now in after.stages.items()
        if digest in first.stages
    }  # fmt: skip
    answers = (before.answers, after.answers, base.answers if base else None)
    return build_concepts(*answers, tuned_on=tuned_on, drift=drift, probes=probes)
