"""The course of a long sequence of edits, as data: facts by age, and how far the weights have moved."""

from typing import Any

from pydantic import Field

from perdure.measuring.shares import Data, Share


class Growth(Data):
    """How far one matrix has moved from the base after some number of edits.

    Attributes:
        facts: Facts taught since the base.
        matrix: Its name.
        layer: The block it belongs to.
        sigma_max: The largest singular value of ΔW.
        sigma_ratio: The same over the base matrix's largest singular value σ*.
        condition_ratio: Condition number now / of the base.
        norm_ratio: Frobenius norm of ΔW / of the base matrix.
    """

    facts: int
    matrix: str
    layer: int | None
    sigma_max: float
    sigma_ratio: float
    condition_ratio: float
    norm_ratio: float


class Cohort(Data):
    """Facts that were taught one after another, asked again later.

    Attributes:
        taught: Facts taught since the base when this was asked.
        label: Which facts, in words.
        kept: The share that the model still answers (teacher-forced: see `knows`).
        before: The same share of the parent version, where it was asked.
    """

    taught: int
    label: str
    kept: Share
    before: Share | None = None


class TradeOff(Data):
    """One strength of a restraint: what it keeps of the edits and what the model loses.

    Attributes:
        restraint: A registered restraint.
        config: Its settings.
        kept: The share of facts that the model answers as taught (teacher-forced: see `knows`).
        divergence: KL(base ‖ after the edit) per token of text, in nats.
        chosen: Whether this one was taken.
    """

    restraint: str
    config: dict[str, Any]
    kept: Share
    divergence: float
    chosen: bool = False


class Course(Data):
    """The course of a sequence of edits.

    Attributes:
        growth: Matrices after each batch.
        cohorts: Facts by age, at each time that they were asked.
        trade_off: The strengths that were tried where the restraint was to be chosen.
    """

    growth: tuple[Growth, ...] = Field((), description="σ_max(ΔW), condition and norm after each batch")
    cohorts: tuple[Cohort, ...] = Field((), description="Facts by age, at each time that they were asked")
    trade_off: tuple[TradeOff, ...] = Field((), description="Strengths of the restraint that were tried")
