"""A pool of adapters in a report: its groups, what they add, and what of the general suite does not fall back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from perdure.measuring.outcomes import Outcomes
from perdure.measuring.shares import Data
from perdure.measuring.suites import Suite, function_prompts

LANGUAGE = "language"
"""The part of the held-out passages."""


class PoolGroup(Data):
    """One group.

    Attributes:
        name: Such as "g1".
        tasks: Its tasks, in the order of joining.
        unserved: Those of them that its adapter was not trained for: their requests are not sent to it.
        versions: How many adapters are kept.
        parameters: Of the adapter in use; 0 without one.
        size: Its bytes.
        share: Its parameters by those of the base.
    """

    name: str
    tasks: tuple[str, ...]
    unserved: tuple[str, ...] = ()
    versions: int
    parameters: int
    size: int
    share: float


class RoutedItem(Data):
    """An item of the general suite that a group answers instead of the base."""

    part: str
    item: str
    group: str
    similarity: float


class PoolMeasures(Data):
    """The pool of a version."""

    groups: tuple[PoolGroup, ...]
    parameters: int = Field(description="Of all adapters in use")
    size: int = Field(description="Their bytes")
    kept: int = Field(description="Bytes of all versions of all adapters")
    share: float = Field(description="Parameters in use by those of the base")
    threshold: float = Field(description="The similarity from which a group answers")
    fallback: str = Field(description="Who answers a request that resembles no group: base or nearest")
    changed: str = Field("", description="The group that this version changed")
    reason: str = Field("", description="Why the task went there, and what its earlier tasks said to it")
    general: int = Field(0, description="Items of the general suite")
    routed: tuple[RoutedItem, ...] = Field((), description="Those that a group answers")


def general_requests(suite: Suite, outcomes: Outcomes) -> dict[str, tuple[str, ...]]:
    """What the model read at each item of a suite, by part, in the order of the outcomes."""
    shown = {f"functions.{name}": function_prompts(pairs) for name, pairs in suite.functions.items()}
    found = {
        part: shown.get(part) or tuple(answer.item for answer in answers)
        for part, answers in outcomes.retention.items()
    }
    return found | {LANGUAGE: tuple(passage.text for passage in suite.passages)}


def part_of_suite(suite: Suite, parts: Sequence[str]) -> Suite:
    """The suite with as little else as possible besides these parts."""
    kinds = {part.partition(".")[0] for part in parts}
    known = {"functions", "facts", "instructions", LANGUAGE}
    if kinds - known:  # a measure of another package may read any of it
        return suite
    return replace(
        suite,
        functions={name: pairs for name, pairs in suite.functions.items() if f"functions.{name}" in parts},
        facts=suite.facts if "facts" in kinds else (),
        instructions=suite.instructions if "instructions" in kinds else (),
        passages=suite.passages if LANGUAGE in kinds else (),
    )


def with_answers(outcomes: Outcomes, others: Outcomes, places: Mapping[str, Sequence[int]]) -> Outcomes:
    """The outcomes with the answers of others at these places of each part."""
    retention = {
        part: tuple(
            others.retention[part][place] if place in places.get(part, ()) else answer
            for place, answer in enumerate(answers)
        )
        for part, answers in outcomes.retention.items()
    }
    language = tuple(
        others.language[place] if place in places.get(LANGUAGE, ()) else passage
        for place, passage in enumerate(outcomes.language)
    )
    return outcomes.model_copy(update={"retention": retention, "language": language})
