"""Shares and their differences, with intervals, as data."""

from pydantic import BaseModel, ConfigDict


class Data(BaseModel):
    """What all parts of a report are: frozen, and closed to fields that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Data):
    """A share of items with its 95% Wilson interval."""

    hits: int
    n: int
    value: float
    low: float
    high: float


class Difference(Data):
    """A paired difference of shares, after − before, with its 95% interval; n is the number of pairs."""

    value: float
    low: float
    high: float
    n: int


class Estimate(Data):
    """A figure with its 95% interval; n is the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


class Comparison(Data):
    """One measure before and after.

    Attributes:
        name: A stable key such as "edits.prompt.generation_contains" or "retention.functions.present_past".
        label: Plain words for people.
        how: How it is judged: "free generation", "probability", "teacher-forced" or "log-likelihood".
        higher_is_better: False for measures where smaller is better.
    """

    name: str
    label: str
    how: str
    before: Share
    after: Share
    difference: Difference
    base: Share | None = None
    against_base: Difference | None = None
    higher_is_better: bool = True

    @property
    def against_original(self) -> Difference:
        """The difference from the base, whether or not the base is the version before."""
        return self.against_base or self.difference
