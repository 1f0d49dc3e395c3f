"""Skills of one model: what it can do from examples, which heads carry it, and what their vector does alone."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from perdure.content import digest_json, write_atomic
from perdure.measuring.shares import Data, Difference, Share
from perdure.measuring.skill_comparison import Bench, Side, distinct, judged_on, recalled, traits_of
from perdure.measuring.statistics import paired_difference, share_of
from perdure.requests.functions import Function
from perdure.vectors import Judged, Traits, strongest, universal_heads, vector_of

_FORMAT = 1  # of how functions are studied; studies of another format are made again
_DIGITS = 6


class HeadEffect(Data):
    """One attention head, from 0, and its average indirect effect on the answer."""

    layer: int
    head: int
    effect: float


class Injected(Data):
    """One kind of held-out questions, with and without the function's vector.

    Attributes:
        plain: Right answers without it.
        vector: With it added.
        random: With a random vector of the same norm added.
        gained: vector − plain, paired.
        layer: Where both were added, chosen on other questions.
    """

    plain: Share
    vector: Share
    random: Share
    gained: Difference
    layer: int


class StudiedFunction(Data):
    """One function on one model.

    Attributes:
        name: What it is called.
        reason: Why no head can be seen to carry it; empty where some can.
        clean: Right answers to prompts with examples.
        shuffled: Right answers to the same prompts with the examples' outputs shuffled.
        heads: The heads with the largest effect in this function, the largest first.
        asked: From the kind of questions to what the vector does.
    """

    name: str
    reason: str = ""
    clean: Share
    shuffled: Share
    heads: tuple[HeadEffect, ...] = ()
    asked: dict[str, Injected] = Field(default_factory=dict)


class StudyMeasures(Data):
    """Functions on one model: Todd et al., ICLR 2024.

    Attributes:
        id: The sha256 (hex) of the model, the functions and the settings.
        model: What the model is called.
        heads: The heads with the largest effect averaged over the functions that tell something; vectors are their sum.
        settings: The resolved settings.
        functions: Every function that was asked for.
    """

    id: str
    model: str
    heads: tuple[HeadEffect, ...]
    settings: dict[str, Any]
    functions: tuple[StudiedFunction, ...]


def study_skills(side: Side, functions: Sequence[Function], bench: Bench) -> StudyMeasures:
    """What a model can do from examples, by which heads, and what their vectors do; recalled if it was studied before.

    Raises:
        RequestError: A function has too few different inputs, or two of one name differ.
    """
    functions = distinct(functions)
    settings = bench.config.model_dump(mode="json")
    asked = [[function.name, function.digest] for function in functions]
    identity = digest_json({"study": _FORMAT, "model": side.id, "functions": asked, "settings": settings})
    path = bench.folder / f"{identity}.json"
    found = recalled(StudyMeasures, path)
    if found is None:
        heads, studied = _study(side, functions, bench)
        found = StudyMeasures(id=identity, model=side.name, heads=heads, settings=settings, functions=studied)
        write_atomic(path, found.model_dump_json().encode())
    return found.model_copy(update={"model": side.name})


def _study(
    side: Side, functions: Sequence[Function], bench: Bench
) -> tuple[tuple[HeadEffect, ...], tuple[StudiedFunction, ...]]:
    model, _ = side.load()  # held, so that it is loaded once
    traits = {function.name: traits_of(side, function, bench) for function in functions}
    told = [one for one in traits.values() if not one.evidence.reason]
    heads = universal_heads(told, bench.config.heads) if told else []
    studied = []
    for function in functions:
        one, asked = traits[function.name], {}
        if not one.evidence.reason:
            asked = judged_on(side, function, vector_of(model, one, heads), bench)
        studied.append(_studied(one, asked, bench.config.heads))
    means = _effects(torch.stack([one.effect_LH for one in told]).mean(0), heads) if told else ()
    return means, tuple(studied)


def _studied(traits: Traits, asked: dict[str, Judged], count: int) -> StudiedFunction:
    evidence = traits.evidence
    return StudiedFunction(
        name=traits.name,
        reason=evidence.reason,
        clean=share_of(evidence.clean),
        shuffled=share_of(evidence.shuffled),
        heads=() if evidence.reason else _effects(traits.effect_LH, strongest(traits.effect_LH, count)),
        asked={kind: _compared(judged) for kind, judged in asked.items()},
    )


def _compared(judged: Judged) -> Injected:
    return Injected(
        plain=share_of(judged.plain),
        vector=share_of(judged.vector),
        random=share_of(judged.random),
        gained=paired_difference(judged.plain, judged.vector),
        layer=judged.layer,
    )


def _effects(effect_LH: Tensor, heads: Sequence[tuple[int, int]]) -> tuple[HeadEffect, ...]:
    return tuple(
        HeadEffect(layer=layer, head=head, effect=round(float(effect_LH[layer, head]), _DIGITS))
        for layer, head in heads
    )
