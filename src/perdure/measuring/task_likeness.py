"""How like a new task is to what a model can do: function vectors, hidden states, and the words of questions.

Shape suffixes: B rows, L layers or blocks read, H query heads, K head size, D hidden size, I things compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.models import layout_of
from perdure.progress import Progress, silent
from perdure.requests.functions import Pair
from perdure.tuning.encoding import Collated, Row
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.reading import read_all
from perdure.tuning.regularizers.feature_distance import FeatureDistance, FeatureDistanceConfig, unit
from perdure.tuning.regularizers.function_vector import FunctionVectorConfig, task_prompts
from perdure.vectors import function_vector

Heads = Sequence[tuple[int, int]]

LEAST_COMPARED = 3
"""With fewer, there is no centre to see hidden states from."""

_SHINGLE = 3  # words


@dataclass(frozen=True)
class Imprint:
    """What questions leave in a model at their last input token, on average.

    Attributes:
        vector_D: The function vector: what the chosen heads write. Zero without heads.
        states_LD: Hidden states of evenly spaced blocks, each of length one before the mean.
        right: How many questions' first answer token was the most probable one.
        n: How many questions there were.
    """

    vector_D: Tensor
    states_LD: Tensor
    right: int
    n: int


def shown_rows(tokenizer: Any, pairs: Sequence[tuple[str, str]], config: FunctionVectorConfig) -> list[Row]:
    """Prompts with examples, as the regularizer function_vector makes them; none where too few can be shown."""
    return [
        Row(
            (*prompt.ids, *prompt.answer),
            (*[False] * len(prompt.ids), *[True] * len(prompt.answer)),
            len(prompt.ids) - 1,
        )
        for prompt in task_prompts(tokenizer, pairs, config)
    ]


def pairs_of_function(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """Inputs and outputs of an in-context function."""
    return [(pair.input, pair.output) for pair in pairs]


def read_imprint(
    model: Any, rows: Sequence[Row], heads: Heads, *, progress: Progress = silent, stage: str = "reading questions"
) -> Imprint:
    """What rows leave in a model, from one pass over them.

    Args:
        model: A causal language model.
        rows: One at least.
        heads: Heads (layer, head) that carry skills; none are needed for the hidden states.
        progress: Told how many rows are read.
        stage: What the work is called there.
    """
    layout = layout_of(model)
    blocks = FeatureDistance(FeatureDistanceConfig()).taps(model)
    layers = sorted({layer for layer, _ in heads})
    taps: Taps = {**blocks, **{f"heads {at}": (layout.attention_out[at].module, "input") for at in layers}}
    mean_LHK = torch.zeros(len(layout), layout.heads, layout.head_dim, dtype=torch.float64)
    states_LD, right = torch.zeros(len(blocks), layout.d_model, dtype=torch.float64), 0
    for seen in read_all(model, rows, taps, progress=progress, stage=stage):
        assert isinstance(seen.batch, Collated)
        last_B = (torch.arange(len(seen.batch.asked_B)), seen.batch.asked_B)
        states_LD += torch.stack([unit(seen.taps[name][last_B]).double().sum(0).cpu() for name in blocks])
        for at in layers:
            mean_LHK[at] += seen.taps[f"heads {at}"][last_B].double().sum(0).cpu().reshape(layout.heads, -1)
        right += _first_right(seen)
    vector_D = function_vector(layout, mean_LHK / len(rows), heads)
    return Imprint(vector_D, states_LD / len(rows), right, len(rows))


def _first_right(seen: Seen) -> int:
    """How many rows' first learnt token is the most probable one."""
    first_N = torch.ones_like(seen.rows_N, dtype=torch.bool)
    first_N[1:] = seen.rows_N[1:] != seen.rows_N[:-1]
    return int((seen.logits_NV[first_N].argmax(1) == seen.labels_N[first_N]).sum())


def feature_overlap(task_LD: Tensor, others_ILD: Tensor) -> Tensor:
    """How far a task uses the same features as others, [I]: cosine of standardised mean states, mean over blocks.

    Every dimension is standardised over all that are compared, the task included: hidden states of any two texts have
    a cosine near 1, from a few large dimensions and a mean that all share. So the figures are relative to what is
    compared: 0 is no more alike than others are.
    """
    all_ILD = torch.cat([task_LD[None], others_ILD]).double()
    centred_ILD = all_ILD - all_ILD.mean(0)
    deviation_LD = centred_ILD.square().mean(0).sqrt()
    standard_ILD = centred_ILD / deviation_LD.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.nn.functional.cosine_similarity(standard_ILD[:1], standard_ILD[1:], dim=-1).mean(1)


def near_duplicates(asked: Sequence[str], known: Sequence[str], *, least: float = 0.8) -> list[tuple[int, int, float]]:
    """For each text that nearly is one of the known ones: its place, that one's, and how like they are.

    Alike is the share of common three-word sequences among all of both (Jaccard); case and punctuation aside. Of
    several known texts as like the first is taken. Two texts that are alike have at least `least` of the one's
    sequences in common, so one of its rarest is among them (prefix filtering: Chaudhuri et al., "A Primitive Operator
    for Similarity Joins in Data Cleaning", ICDE 2006); what all questions of a task share is not looked up.
    """
    of_known = [_shingles(text) for text in known]
    first: dict[frozenset[str], int] = {}
    for place, shingles in enumerate(of_known):
        first.setdefault(frozenset(shingles), place)
    holders: dict[str, list[int]] = {}
    for different, place in first.items():
        for shingle in different:
            holders.setdefault(shingle, []).append(place)
    found = []
    for place, text in enumerate(asked):
        shingles = _shingles(text)
        needed = math.ceil(least * len(shingles) - 1e-9)
        rarest = sorted(shingles, key=lambda shingle: len(holders.get(shingle, ())))[: len(shingles) - needed + 1]
        others = {other for shingle in rarest for other in holders.get(shingle, ())}
        alike, best = max(((_jaccard(shingles, of_known[other]), -other) for other in others), default=(0.0, 0))
        if others and alike >= least:
            found.append((place, -best, alike))
    return found


def _jaccard(one: set[str], other: set[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _shingles(text: str) -> set[str]:
    words = "".join(char if char.isalnum() else " " for char in text.casefold()).split()
    if len(words) <= _SHINGLE:
        return {" ".join(words)} if words else set()
    return {" ".join(words[start : start + _SHINGLE]) for start in range(len(words) - _SHINGLE + 1)}
