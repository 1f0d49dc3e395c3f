"""Watched concepts of a bank's questions, invented: one lost, one protected, the others as they were."""

import numpy as np

from perdure.measuring.watched import Discovery, FoundConcept, Marks, TriedCount
from perdure.measuring.watching import WatchAnswers, Watching, build_watched

NAMES = (
    "Where is my new card?",
    "How do I top up by bank transfer?",
    "My card was declined in a shop",
    "What is the exchange rate?",
    "I want to close my account",
    "Why was I charged twice?",
)
SHARES = (0.24, 0.19, 0.16, 0.12, 0.08, 0.06)
N = 60


def card(names=NAMES, counted=""):
    concepts = tuple(
        FoundConcept(id=f"c{place + 1}", name=name, examples=(name, f"{name} Please tell me."), items=N, share=share)
        for place, (name, share) in enumerate(zip(names, SHARES, strict=False))
    )
    return Discovery(
        key="k" * 64, source="questions", path="questions.csv", side="text", data="d", encoder="e",
        settings={}, tried=(TriedCount(clusters=6, stability=0.9, low=0.8),), clusters=6, concepts=concepts,
        unknown=0.15, counted=counted,
    )  # fmt: skip


def watching(right, moved=0.0, key="k" * 64):
    """Of the items of each concept, so many are recognised."""
    labels = tuple(place for place in range(len(right)) for _ in range(N))
    said = tuple(label if at % N < right[label] else (label + 1) % len(right) for at, label in enumerate(labels))
    answers = WatchAnswers(
        settings="s", key=key, items=tuple(range(len(labels))), labels=labels, linear=said, neighbours=said
    )
    features = np.random.default_rng(0).normal(size=(len(labels), 8))
    features += moved * np.random.default_rng(1).normal(size=features.shape)
    return Watching(answers, features.astype(np.float16))


BEFORE, AFTER = (56, 57, 55, 58, 54, 56), (57, 57, 34, 58, 53, 56)


def watched(before=BEFORE, after=AFTER, base=None, weights=None, names=NAMES, counted=""):
    marks = Marks(key="k" * 64, weights={"c2": 3.0} if weights is None else weights)
    oldest = None if base is None else watching(base)
    return build_watched(card(names, counted), watching(before), watching(after, 0.3), oldest, marks=marks)
