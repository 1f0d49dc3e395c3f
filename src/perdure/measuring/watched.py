"""Concepts found without labels, as data: what they are called, how often they occur, and whether they are kept.

A concept is a group of items whose reference features lie together. Reading these classes takes no torch.
"""

from typing import Annotated, Any

from pydantic import Field

from perdure.measuring.concepts import CLEAR
from perdure.measuring.shares import Comparison, Data, Difference, Estimate

Picture = Annotated[str, Field(pattern=r"^data:image/jpeg;base64,[A-Za-z0-9+/]+=*$", max_length=40_000)]


class FoundConcept(Data):
    """One group of like items.

    Attributes:
        id: Such as "c1"; ranked by traffic when they were found.
        name: Words, where there are any, else the item nearest the centre.
        words: The nearest words of a list, the nearest first.
        examples: The items nearest the centre: texts, or where a picture stands.
        pictures: Of images, small pictures of them as data: addresses.
        items: How many different items belong to it.
        share: Of the traffic, how much belongs to it.
    """

    id: str
    name: str
    words: tuple[str, ...] = ()
    examples: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    items: int
    share: float = Field(ge=0, le=1)


class TriedCount(Data):
    """How far clusters of two halves of the items agree, on average and at worst: 1 for the same, 0 for chance."""

    clusters: int
    stability: float
    low: float


class Discovery(Data):
    """The concepts that were found in one encoder's features of unlabelled data.

    Attributes:
        key: The identity: what was read, by which encoder, and how.
        source: What the data is called.
        path: Where it was read from.
        side: "image" or "text".
        data: The identity of its items, in their order.
        encoder: The identity of the encoder.
        model: How the encoder was named, to load it again.
        settings: How they were looked for.
        tried: The numbers of clusters that were tried.
        clusters: The number that was chosen; small clusters were dissolved afterwards.
        concepts: What was found; those that occur most first.
        unknown: The share of the traffic that lies in none.
        counted: Whose traffic the shares are of; the data's own where empty.
    """

    format: int = 1
    key: str
    source: str
    path: str
    side: str
    data: str
    encoder: str
    model: str = ""
    settings: dict[str, Any]
    tried: tuple[TriedCount, ...]
    clusters: int
    concepts: tuple[FoundConcept, ...]
    unknown: float = Field(ge=0, le=1)
    counted: str = ""


class Marks(Data):
    """Which concepts are in force, and which of them somebody protects.

    Attributes:
        key: Of the concepts.
        weights: From the id of a protected concept to its weight where features are held.
    """

    key: str
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)


class WatchedConcept(Data):
    """One concept, before and after.

    Attributes:
        weight: How much it counts where features are held; 1 unless somebody chose otherwise.
        protected: Whether somebody marked it.
        linear: Items told from those of other concepts by a linear probe, fitted anew on each encoder's features.
        neighbours: The same by nearest neighbours.
        jointly: The difference of the linear probe, with an interval that holds for all concepts at once.
        chance: The probability of so uneven a change if there were none, corrected for all concepts.
        drift: How far its items' features moved: 0 not at all, 2 for unrelated ones.
    """

    concept: FoundConcept
    weight: float = Field(1.0, ge=0)
    protected: bool = False
    linear: Comparison
    neighbours: Comparison
    jointly: Difference
    chance: float = Field(ge=0, le=1)
    drift: Estimate

    @property
    def worse(self) -> bool:
        """Whether it clearly got worse, however many concepts were looked at."""
        return self.linear.difference.value < 0 and self.chance <= CLEAR

    @property
    def better(self) -> bool:
        """Whether it clearly got better."""
        return self.linear.difference.value > 0 and self.chance <= CLEAR


class WatchedMeasures(Data):
    """What became of concepts that were found in unlabelled data.

    Attributes:
        source: What the data is called.
        side: "image" or "text".
        key: The identity of the concepts.
        concepts: Those that occur most first.
        traffic: The change over the traffic: each concept counts as often as it occurs.
        traffic_against_base: Against the original encoder, where it is another version.
        unknown: The share of the traffic that lies in no concept.
        counted: Whose traffic the shares are of; the data's own where empty.
    """

    source: str
    side: str
    key: str
    concepts: tuple[WatchedConcept, ...]
    traffic: Difference
    traffic_against_base: Difference | None = None
    unknown: float = Field(ge=0, le=1)
    counted: str = ""

    @property
    def protected(self) -> tuple[WatchedConcept, ...]:
        """Those that somebody marked."""
        return tuple(found for found in self.concepts if found.protected)

    @property
    def worse(self) -> tuple[WatchedConcept, ...]:
        """Those that clearly got worse, the largest loss first."""
        return tuple(sorted((found for found in self.concepts if found.worse), key=_difference))

    @property
    def better(self) -> tuple[WatchedConcept, ...]:
        """Those that clearly got better, the largest gain first."""
        return tuple(sorted((found for found in self.concepts if found.better), key=_difference, reverse=True))


def _difference(found: WatchedConcept) -> float:
    return found.linear.difference.value
