"""What an edit found out about every neuron, as data: the angle between its old and its new update, and its case."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from perdure.measuring.shares import Data

MERGED, KEPT, CONFLICT, SKIPPED = "acute", "orthogonal", "obtuse", "skipped"
CASES = (MERGED, KEPT, CONFLICT, SKIPPED)


class NeuronGroup(Data):
    """The neurons of one layer, or of one matrix, in one batch of facts."""

    batch: int = Field(description="Which batch of facts, from 1")
    layer: int
    matrix: str | None = Field(None, description="The matrix whose rows these are; None for MLP units")
    low: float = Field(description="Degrees; below it an angle is acute")
    high: float = Field(description="Degrees; above it an angle is obtuse")
    dimension: float = Field(description="How many dimensions unrelated updates live in")
    explained: float = Field(description="Share of the squared norm of both updates that the projection holds")
    shared: float = Field(0.0, description="How much of the old update was taken out of the new one before the angles")
    gain: float = Field(1.0, description="By how much the update of the neurons that moved was scaled")
    merges: bool = Field(True, description="Whether acute neurons were given a mean of both updates, or left alone")
    angles: dict[str, tuple[int, ...]] = Field(description="From each case to its neurons in equal bins of 0° to 180°")
    cases: dict[str, str] = Field(description='From each case to its neurons as ranges, such as "0-3,7,9-12"')

    def count(self, case: str) -> int:
        """How many neurons are of this case."""
        return sum(self.angles.get(case, ()))

    def neurons(self, case: str) -> list[int]:
        """The neurons of this case, ascending."""
        return list(_numbers(self.cases.get(case, "")))


class NeuronMeasures(Data):
    """Every group of every batch."""

    groups: tuple[NeuronGroup, ...]

    def count(self, case: str) -> int:
        """How many neurons are of this case, over all groups."""
        return sum(group.count(case) for group in self.groups)

    @property
    def merges(self) -> bool:
        """Whether acute neurons were merged anywhere."""
        return any(group.merges for group in self.groups)

    def histogram(self, case: str) -> list[int]:
        """The neurons of this case by angle, over all groups."""
        parts = [group.angles[case] for group in self.groups if case in group.angles]
        return [sum(bins) for bins in zip(*parts, strict=True)]


def build_neurons(notes: Mapping[str, Any]) -> NeuronMeasures | None:
    """What the notes of a solved delta say about neurons; None where its editor judges none."""
    batches: Sequence[Mapping[str, Any]] = notes.get("batches") or [notes]
    groups = [
        NeuronGroup.model_validate({"batch": number, **group})
        for number, batch in enumerate(batches, 1)
        for group in batch.get("neurons", ())
    ]
    return NeuronMeasures(groups=tuple(groups)) if groups else None


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
