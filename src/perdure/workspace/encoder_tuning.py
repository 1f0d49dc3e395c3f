"""From labelled sets to candidates of an encoder: each set learnt on the version that the one before it left."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perdure.content import digest_json
from perdure.deltas import Delta
from perdure.errors import RefusedError, SettingError
from perdure.measuring.watched import Marks
from perdure.measuring.watched_files import FOLDER, load_found, read_marks
from perdure.measuring.watching import check_data
from perdure.requests.concepts import Probe, Unlabelled
from perdure.settings import checked
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.rates import with_rate
from perdure.tuning.regularizer import Surroundings
from perdure.workspace.contents import Room
from perdure.workspace.heads import head_bytes, head_name, heads_of
from perdure.workspace.records import Version
from perdure.workspace.tuning import keep_states, surroundings_of
from perdure.workspace.watched import data_of, encoder_of

if TYPE_CHECKING:
    from perdure.tuning.encoders.run import TunedEncoder
    from perdure.workspace.workspace import Workspace

LEARNING = "encoder_tuning"
ANCHORS = 256
"""Items of protected concepts that are held beside a set, at most."""


@dataclass(frozen=True)
class Held:
    """Items of protected concepts that are held beside a set.

    Attributes:
        key: The identity of the concepts.
        weights: From the id of a protected concept to how much its items count.
        places: The places of the items in the data, drawn once.
    """

    key: str
    weights: Mapping[str, float]
    places: tuple[int, ...]


@dataclass(frozen=True)
class LearningPlan:
    """Everything that decides what learning a labelled set gives.

    Attributes:
        parent: The id of the version to tune.
        probe: The labelled set.
        config: The resolved settings.
        held: What is held beside it; None where no concept is protected, or nothing holds items.
    """

    parent: str
    probe: Probe
    config: EncoderTuningConfig
    held: Held | None = None

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest."""
        learnt = {"name": self.probe.name, "digest": self.probe.digest, "side": self.probe.side}
        return {
            "kind": LEARNING,
            "set": {**learnt, "classes": len(self.probe.classes), "rows": len(self.probe.train)},
            "config": self.config.model_dump(mode="json"),
            **self._anchors(),
            "restraint": "none",
            "restraint_config": {"kind": "none"},
        }

    def _anchors(self) -> dict[str, Any]:
        held = self.held
        return {"anchors": {"key": held.key, "weights": held.weights, "rows": len(held.places)}} if held else {}

    @property
    def digest(self) -> str:
        """What names this plan's unfinished work."""
        return digest_json({"parent": self.parent, **self.recipe()})


def plan_learning(
    shop: "Workspace", probe: Probe, settings: Mapping[str, Any], *, on: "str | Version" = ""
) -> LearningPlan:
    """What learning a labelled set would do; nothing is trained.

    Raises:
        RefusedError: The version stands on a rejected one.
        SettingError: A setting that does not exist or is out of range, or the model writes text.
    """
    if not shop.is_encoder:
        raise SettingError("this workspace's model writes text; it is tuned on tasks, not on labelled sets")
    parent = shop.version(on) if on else shop.newest()
    rejected = shop.rejected(parent)
    if rejected is not None:
        raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; tune another version")
    config = checked(EncoderTuningConfig, settings, "tuning of an encoder")
    if config.learning_rate is None:
        config = with_rate(config, encoder_of(shop, parent), probe.side)
    return LearningPlan(parent.id, probe, config, _held(shop, probe, config))


def learn_set(
    shop: "Workspace", probe: Probe, settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str
) -> Version:
    """A version whose encoder learnt a labelled set. An interrupted training of the same plan is taken up again."""
    from perdure.tuning.encoders.run import tune_encoder  # transformers' Trainer takes seconds to import

    plan = plan_learning(shop, probe, settings, on=on)
    parent = shop.version(plan.parent)
    work = shop.folder / "work" / f"learning-{plan.digest[:32]}"
    started = time.monotonic()
    anchors, weights = _anchors(shop, plan.held)
    tuned = tune_encoder(
        encoder_of(shop, parent),
        probe,
        plan.config,
        _surroundings(shop, parent),
        known=list(heads_of(shop, parent).values()),
        anchors=anchors,
        anchor_weights=weights,
        work=work,
    )
    version = _stored(shop, parent, plan, tuned, seconds=time.monotonic() - started, actor=actor)
    keep_states(shop, version, tuned.states)
    shutil.rmtree(work, ignore_errors=True)
    return version


def _held(shop: "Workspace", probe: Probe, config: EncoderTuningConfig) -> Held | None:
    """Items of protected concepts, drawn by the seed, where something holds them."""
    marks = read_marks(shop.folder / FOLDER)
    if marks is None or not any(marks.weights.values()) or not config.reads_anchors:
        return None
    found = load_found(shop.folder / FOLDER, marks.key)
    if found.card.side != probe.side:
        return None
    drawn = np.random.default_rng(config.seed).permutation(found.protected(marks))[:ANCHORS]
    return Held(marks.key, dict(marks.weights), tuple(sorted(map(int, drawn)))) if len(drawn) else None


def _anchors(shop: "Workspace", held: Held | None) -> tuple[Unlabelled | None, Sequence[float] | None]:
    """The held items and how much each counts.

    Raises:
        RequestError: Their data is not where it was, or has changed.
    """
    if held is None:
        return None, None
    found = load_found(shop.folder / FOLDER, held.key)
    data = data_of(found)
    check_data(found, data)
    weights = found.weights(Marks(key=held.key, weights=dict(held.weights)))
    return data.select(held.places), [weights[place] for place in held.places]


def _surroundings(shop: "Workspace", parent: Version) -> Surroundings:
    """What a tuning of an encoder's version stands on; its original opens an encoder."""
    around = surroundings_of(shop, parent)
    if around.original is None:
        return around
    base = shop.archive.lineage(parent)[0]

    @contextmanager
    def original() -> Iterator[Any]:
        yield encoder_of(shop, base, fresh=True)

    return replace(around, original=original)


def _stored(
    shop: "Workspace", parent: Version, plan: LearningPlan, tuned: "TunedEncoder", *, seconds: float, actor: str
) -> Version:
    delta = tuned.delta
    low_rank = {name: change for name, change in delta.changes.items() if change.is_low_rank}
    dense = sorted(name for name, change in delta.changes.items() if not change.is_low_rank)
    notes = {"facts": [], "training": {**delta.notes, "seconds": round(seconds, 1)}}
    return shop.archive.commit(
        parent,
        delta,
        solved=Delta(low_rank, notes=notes),
        recipe={**plan.recipe(), "dense": dense},
        actor=actor,
        room=Room(files={head_name(plan.probe.digest): head_bytes(tuned.head)}),
    )
