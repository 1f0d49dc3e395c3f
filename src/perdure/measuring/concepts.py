"""What an encoder recognises, before and after, as data: probe sets, their classes, what was lost, features' drift.

Δ is accuracy after less accuracy before, on the same items; below zero, something was forgotten.
"""

from collections.abc import Mapping

from pydantic import Field

from perdure.measuring.shares import Comparison, Data, Difference, Estimate, Share

CLEAR = 0.05
"""A class counts as clearly changed up to this corrected probability."""


class SetAnswers(Data):
    """What one encoder's features say of the test items of one probe set, item by item.

    Attributes:
        name: Of the set.
        side: "image" or "text".
        classes: Their names.
        items: The place of each item in the test part.
        labels: The right class of each item, by its number.
        linear: The class that the linear probe says.
        neighbours: The class that the nearest train items say.
        zero_shot: The class whose prompts lie nearest; None without a text tower.
        head: The class that the encoder's own head says; None without one for this set.
        train: Train items that the probe read.
        strength: The C that was chosen for the linear probe.
    """

    name: str
    side: str
    classes: tuple[str, ...]
    items: tuple[int, ...]
    labels: tuple[int, ...]
    linear: tuple[int, ...]
    neighbours: tuple[int, ...]
    zero_shot: tuple[int, ...] | None = None
    head: tuple[int, ...] | None = None
    train: int
    strength: float


class ConceptAnswers(Data):
    """What one encoder's features say of several probe sets.

    Attributes:
        settings: The digest of how it was measured; answers under other settings do not compare.
        sets: From a set's digest to its answers.
    """

    settings: str
    sets: Mapping[str, SetAnswers]


class ConceptClass(Data):
    """One class of a probe set, by the linear probe.

    Attributes:
        before: Of its items, those recognised before.
        after: Those recognised now.
        difference: With the interval of this class alone.
        jointly: With an interval that holds for all classes of all sets at once; it reaches zero where `chance` is
            above `CLEAR`.
        chance: The probability of so uneven a change if there were none, corrected for all classes of all sets.
    """

    name: str
    before: Share
    after: Share
    difference: Difference
    jointly: Difference
    chance: float = Field(ge=0, le=1)

    @property
    def worse(self) -> bool:
        """Whether it clearly got worse, however many classes were looked at."""
        return self.jointly.high < 0

    @property
    def better(self) -> bool:
        """Whether it clearly got better."""
        return self.jointly.low > 0


class LostItem(Data):
    """A test item that was recognised before and is not now.

    Attributes:
        name: The text itself, cut; of an image its file or its number.
        label: What it is.
        taken_for: What it is taken for now.
        picture: A small picture of it as a data: address; empty for a text.
    """

    name: str
    label: str
    taken_for: str
    picture: str = Field("", pattern=r"^(data:image/jpeg;base64,[A-Za-z0-9+/]+=*)?$", max_length=40_000)


class StageDrift(Data):
    """How far features of one stage are from those of the original encoder: 0 for equal, 2 for unrelated ones."""

    stage: str
    distance: Estimate


class ConceptSet(Data):
    """One probe set, probed before, after, and of the base.

    Attributes:
        digest: Of the set's content.
        tuned: Whether the encoder was tuned on it; it is then no part of the mean.
        linear: The linear probe: Δ_LP.
        neighbours: The nearest neighbours: Δ_kNN.
        zero_shot: Class prompts, where there is a text tower: Δ_ZS.
        head: What the encoder's own head has right now; None where no head was trained on this set.
        classes: Each class by the linear probe, the largest loss first.
        lost: Examples of items that are not recognised any more, from the classes that lost most.
        lost_count: How many items were recognised before and are not now, by the linear probe.
        gained: How many went the other way.
        drift: Each stage of the encoder, in order of depth.
        strength_before: The C of the linear probe before.
        strength: That of now.
    """

    digest: str
    name: str
    side: str
    train: int
    tuned: bool = False
    linear: Comparison
    neighbours: Comparison
    zero_shot: Comparison | None = None
    head: Share | None = None
    classes: tuple[ConceptClass, ...]
    lost: tuple[LostItem, ...] = ()
    lost_count: int = 0
    gained: int = 0
    drift: tuple[StageDrift, ...] = ()
    strength_before: float
    strength: float


class ConceptMean(Data):
    """The mean change over the probe sets that the encoder was not tuned on.

    Attributes:
        sets: How many they are.
        difference: Against the version before; the interval is over the items of these sets.
        against_base: Against the original, where it is another version.
    """

    sets: int
    difference: Difference
    against_base: Difference | None = None

    @property
    def against_original(self) -> Difference:
        """The difference from the original, whether or not it is the version before."""
        return self.against_base or self.difference


class ConceptMeasures(Data):
    """What an encoder recognises, before and after.

    Attributes:
        sets: The probe sets, those that it was not tuned on first.
        linear: The mean Δ_LP over those; None where it was tuned on all.
        neighbours: The mean Δ_kNN.
        zero_shot: The mean Δ_ZS over those that have it.
    """

    sets: tuple[ConceptSet, ...]
    linear: ConceptMean | None = None
    neighbours: ConceptMean | None = None
    zero_shot: ConceptMean | None = None

    @property
    def others(self) -> tuple[ConceptSet, ...]:
        """The sets that it was not tuned on."""
        return tuple(found for found in self.sets if not found.tuned)

    @property
    def classes(self) -> tuple[tuple[ConceptSet, ConceptClass], ...]:
        """Every class of the sets that it was not tuned on, the largest loss first."""
        found = [(each, given) for each in self.others for given in each.classes]
        return tuple(sorted(found, key=lambda pair: pair[1].difference.value))
