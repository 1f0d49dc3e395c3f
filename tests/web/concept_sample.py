"""An invented image encoder that was tuned on signs, and what it lost of other sets."""

import random

import numpy as np
import report_sample

from perdure.measuring.concept_measures import build_concepts
from perdure.measuring.concept_pictures import thumbnail
from perdure.measuring.concepts import ConceptAnswers, LostItem, SetAnswers, StageDrift
from perdure.measuring.report import Verdict
from perdure.measuring.shares import Estimate

ANIMALS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
STAGES = tuple(f"vision_model.encoder.layers.{place}" for place in (1, 4, 6, 9, 11))


def answers(name, classes, right, *, seed, n=60, side="image", zero_shot=True):
    """A set of n items a class; those right are the first ones, shifted a little by the seed."""
    drawn = random.Random(seed)
    labels = [label for label in range(len(classes)) for _ in range(n)]
    said = []
    for at, label in enumerate(labels):
        hit = at % n < right[label] if drawn.random() > 0.04 else drawn.random() < 0.5
        said.append(label if hit else (label + 1 + at % 3) % len(classes))
    return SetAnswers(
        name=name, side=side, classes=classes, items=tuple(range(len(labels))), labels=tuple(labels),
        linear=tuple(said), neighbours=tuple(said[:-20] + labels[-20:]), zero_shot=tuple(said) if zero_shot else None,
        train=4000, strength=100.0,
    )  # fmt: skip


def drift(scale):
    values = [scale * value for value in (0.004, 0.02, 0.06, 0.16, 0.35)]
    return tuple(
        StageDrift(stage=stage, distance=Estimate(value=value, low=0.9 * value, high=1.1 * value, n=128))
        for stage, value in zip(STAGES, values, strict=True)
    )


def measures(names=("cifar10", "mnist", "sign digits"), classes=(ANIMALS, DIGITS, DIGITS), *, lost=6, zero_shot=True):
    """The third set was tuned on; of the first, its last classes are lost."""
    moments = []
    for seed, (falls, rises) in enumerate(((0, 0), (lost, 22), (-1, 2))):
        sets = {}
        for place, (name, own) in enumerate(zip(names, classes, strict=True)):
            right = [
                50 - falls - (3 * falls if place == 0 and label > len(own) - 3 else 0) for label in range(len(own))
            ]
            if place == len(names) - 1:
                right = [30 + rises] * len(own)
            sets[f"{place:x}" * 64] = answers(name, own, right, seed=10 * seed + place, zero_shot=zero_shot)
        moments.append(ConceptAnswers(settings="s", sets=sets))
    digests = list(moments[0].sets)
    drifts = dict(zip(digests, (drift(1.0), drift(0.6), drift(1.6)), strict=False))
    found = build_concepts(*moments, tuned_on=digests[-1:], drift=drifts)
    shown = tuple(each.model_copy(update={"lost": pictures(each)}) for each in found.sets)
    return found.model_copy(update={"sets": shown})


def pictures(each, count=8):
    drawn = np.random.default_rng(len(each.name))
    items = []
    for place in range(count):
        rows = np.linspace(0, 255, 32)[:, None, None] * drawn.random(3) + drawn.integers(0, 40, (32, 32, 3))
        label = each.classes[place % 2].name
        picture = thumbnail(rows.clip(0, 255).astype(np.uint8))
        items.append(LostItem(name=f"row {place}", label=label, taken_for=each.classes[-1].name, picture=picture))
    return tuple(items)


def report(found=None):
    """The report of an encoder that was tuned on a set: no fact was taught."""
    verdicts = (
        Verdict(gate="concepts kept", verdict="fail", reason="−14.0 (−16.5 to −11.4, n = 1200) points; at most 2"),
    )
    return report_sample.full_report(based=True).model_copy(
        update={
            "edits": None, "ripple": None, "language": None, "retention": None, "harness": (), "model": "clip-vit-b-32",
            "request": {"kind": "tuning", "set": "sign digits"}, "concepts": measures() if found is None else found,
            "verdicts": verdicts, "verdict": "fail",
        }
    )  # fmt: skip
