"""What an encoder recognises as the report shows it: from the answers of two or three encoders to differences."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Literal

from perdure.errors import RequestError
from perdure.measuring.compare import compare_hits
from perdure.measuring.concept_statistics import Pair, holm, joint_difference, mean_difference_of_sets, sign_test
from perdure.measuring.concepts import (
    CLEAR,
    ConceptAnswers,
    ConceptClass,
    ConceptMean,
    ConceptMeasures,
    ConceptSet,
    LostItem,
    SetAnswers,
    StageDrift,
)
from perdure.measuring.shares import Comparison, Difference
from perdure.measuring.statistics import paired_difference, share_of

if TYPE_CHECKING:
    from perdure.requests.concepts import Probe

LOST_LIMIT = 12
"""Examples of what was lost that a set shows."""
_Way = Literal["linear", "neighbours", "zero_shot", "head"]
_HOW: Mapping[_Way, str] = {"linear": "linear probe", "neighbours": "nearest neighbours", "zero_shot": "zero-shot"}
_Models = tuple[ConceptAnswers, ConceptAnswers, ConceptAnswers | None]


def build_concepts(
    before: ConceptAnswers,
    after: ConceptAnswers,
    base: ConceptAnswers | None = None,
    *,
    tuned_on: Collection[str] = (),
    drift: Mapping[str, tuple[StageDrift, ...]] | None = None,
    probes: Sequence["Probe"] = (),
) -> ConceptMeasures | None:
    """What is recognised before and after; None when no set was probed.

    Args:
        before: Of the parent.
        after: Of the candidate, on the same sets.
        base: Of the original, where it is not the parent.
        tuned_on: Digests of the sets that the encoder was tuned on: they are shown, and left out of every mean.
        drift: From a set's digest to how far each stage moved from the original.
        probes: The sets, for examples of what was lost; without them none are shown.

    Raises:
        RequestError: The encoders were probed on other sets or under other settings.
    """
    if not after.sets:
        return None
    models = (before, after, base)
    _check([model for model in models if model is not None])
    held = {probe.digest: probe for probe in probes}
    classes = _classes(before, after)
    sets = [
        _set(digest, models, classes[digest], held.get(digest), tuned=digest in tuned_on).model_copy(
            update={"drift": (drift or {}).get(digest, ())}
        )
        for digest in after.sets
    ]
    others = [digest for digest in after.sets if digest not in tuned_on]
    return ConceptMeasures(
        sets=tuple(sorted(sets, key=lambda found: found.tuned)),
        linear=_mean(models, others, "linear"),
        neighbours=_mean(models, others, "neighbours"),
        zero_shot=_mean(models, others, "zero_shot"),
    )


def _set(
    digest: str, models: _Models, classes: tuple[ConceptClass, ...], probe: "Probe | None", *, tuned: bool
) -> ConceptSet:
    old, new = models[0].sets[digest], models[1].sets[digest]
    pairs = list(zip(_hits(old, "linear"), _hits(new, "linear"), strict=True))
    lost = [at for at, (then, now) in enumerate(pairs) if then and not now]
    return ConceptSet(
        digest=digest,
        name=new.name,
        side=new.side,
        train=new.train,
        tuned=tuned,
        linear=_comparison(digest, models, "linear"),
        neighbours=_comparison(digest, models, "neighbours"),
        zero_shot=_comparison(digest, models, "zero_shot") if new.zero_shot is not None else None,
        head=None if new.head is None else share_of(_hits(new, "head")),
        classes=classes,
        lost=_examples(lost, new, classes, probe) if probe else (),
        lost_count=len(lost),
        gained=sum(now and not then for then, now in pairs),
        strength_before=old.strength,
        strength=new.strength,
    )


def _hits(answers: SetAnswers, way: _Way) -> list[bool]:
    said = getattr(answers, way)
    return [given == right for given, right in zip(said, answers.labels, strict=True)]


def _comparison(digest: str, models: _Models, way: _Way) -> Comparison:
    before, after, base = (None if model is None else _hits(model.sets[digest], way) for model in models)
    assert before is not None and after is not None
    name = models[1].sets[digest].name
    return compare_hits(f"concepts.{name}.{way}", name, _HOW[way], (before, after, base))


def _mean(models: _Models, digests: Iterable[str], way: _Way) -> ConceptMean | None:
    before, after, base = models
    shared = [digest for digest in digests if getattr(after.sets[digest], way) is not None]
    if not shared:
        return None
    return ConceptMean(
        sets=len(shared),
        difference=mean_difference_of_sets(_pairs(before, after, shared, way)),
        against_base=mean_difference_of_sets(_pairs(base, after, shared, way)) if base else None,
    )


def _pairs(old: ConceptAnswers, new: ConceptAnswers, digests: Sequence[str], way: _Way) -> list[Pair]:
    return [(_hits(old.sets[digest], way), _hits(new.sets[digest], way)) for digest in digests]


def _classes(before: ConceptAnswers, after: ConceptAnswers) -> dict[str, tuple[ConceptClass, ...]]:
    """The classes of every set, the largest loss first; what is said of one holds among all that were looked at."""
    split = [(digest, name, pair) for digest, new in after.sets.items()
             for name, pair in _by_class(before.sets[digest], new)]  # fmt: skip
    chances = holm([sign_test(*pair) for _, _, pair in split])
    found: dict[str, list[ConceptClass]] = {digest: [] for digest in after.sets}
    for (digest, name, (old, new)), chance in zip(split, chances, strict=True):
        given = ConceptClass(
            name=name,
            before=share_of(old),
            after=share_of(new),
            difference=paired_difference(old, new),
            jointly=_reaching_zero(joint_difference(old, new, len(split)), chance),
            chance=chance,
        )
        found[digest].append(given)
    return {
        digest: tuple(sorted(classes, key=lambda each: (each.difference.value, each.name)))
        for digest, classes in found.items()
    }


def _reaching_zero(given: Difference, chance: float) -> Difference:
    """The interval, extended to zero where the exact test does not exclude it: few items make the other one bold."""
    if chance <= CLEAR:
        return given
    return given.model_copy(update={"low": min(given.low, 0.0), "high": max(given.high, 0.0)})


def _by_class(before: SetAnswers, after: SetAnswers) -> list[tuple[str, Pair]]:
    """Of each class that has items: its name, and whether each item is recognised before and after."""
    own: dict[int, tuple[list[bool], list[bool]]] = {}
    for label, old, new in zip(after.labels, _hits(before, "linear"), _hits(after, "linear"), strict=True):
        sides = own.setdefault(label, ([], []))
        sides[0].append(old)
        sides[1].append(new)
    return [(after.classes[label], own[label]) for label in sorted(own)]


def _examples(
    lost: Sequence[int], answers: SetAnswers, classes: Sequence[ConceptClass], probe: "Probe"
) -> tuple[LostItem, ...]:
    """Items that are not recognised any more: of the classes that lost most, in turn."""
    from perdure.measuring.concept_pictures import item_shown

    by_class = [[at for at in lost if answers.classes[answers.labels[at]] == given.name] for given in classes]
    turns = chain.from_iterable(zip_longest(*by_class))
    chosen = [at for at in turns if at is not None][:LOST_LIMIT]
    found = []
    for at in chosen:
        name, picture = item_shown(probe.test, answers.items[at])
        label, taken_for = answers.classes[answers.labels[at]], answers.classes[answers.linear[at]]
        found.append(LostItem(name=name, label=label, taken_for=taken_for, picture=picture))
    return tuple(found)


def _check(models: Sequence[ConceptAnswers]) -> None:
    """Raises: RequestError."""
    if len({model.settings for model in models}) > 1:
        raise RequestError("encoders that were probed under other settings do not compare; probe them alike")
    asked = [{digest: answers.items for digest, answers in model.sets.items()} for model in models]
    if any(each != asked[0] for each in asked):
        raise RequestError("the encoders were probed on other sets; probe every version on the same ones")
