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
