"""Advice before a task is trained, as data: what it is, what it puts at risk, what it costs, which settings fit it."""

from typing import Any

from perdure.measuring.shares import Data, Share
from perdure.measuring.tuning_costs import Memory
from perdure.requests.tasks import Lengths


class Proposal(Data):
    """A setting and why.

    Attributes:
        name: Of a setting of `TuningConfig`.
        reason: In words; "as given" where the user set it.
    """

    name: str
    value: Any
    reason: str


class GroupAdvice(Data):
    """The group of instructions that the task would join.

    Attributes:
        members: Tasks that are in it already.
        reason: The choice in words; why there is none where `group` is empty.
    """

    group: str
    members: tuple[str, ...] = ()
    reason: str


class Risk(Data):
    """Something the model can do, and how like it the new task is.

    Attributes:
        kind: "task" for one that was learnt before, "skill" for a built-in in-context function.
        likeness: Cosine of the function vectors; None where no heads carry skills or too few pairs can be shown.
        overlap: Cosine of standardised hidden states; None where too little is compared.
        right: Of its prompts with examples, those whose first answer token was the most probable one;
            None where too few pairs can be shown.
    """

    name: str
    kind: str
    likeness: float | None
    overlap: float | None
    right: Share | None


class Duplicates(Data):
    """Rows to learn that ask nearly what test rows of an earlier task ask.

    Attributes:
        conflicting: How many of them have another answer there: learning them costs that task.
        examples: Pairs of sources or beginnings of questions, three at most.
    """

    task: str
    rows: int
    conflicting: int
    examples: tuple[tuple[str, str], ...]


class TermAdvice(Data):
    """What a regularizer costs.

    Attributes:
        once_flop: Before the first and after the last step; None where it was not worked out on paper.
        target_bytes: What it computes once and keeps in a file while the task is trained.
        step_share: What it adds to a step on paper, as a share of a plain step.
        measured_share: The same, measured.
    """

    name: str
    once_flop: float | None
    target_bytes: int | None
    step_share: float | None
    measured_share: float | None


class CostAdvice(Data):
    """What the training costs under the proposed settings.

    Attributes:
        steps: Batches, accumulated ones included.
        tokens: Read by them, padding included.
        training_flop: Of all batches, on paper.
        once_flop: Of what regularizers and averaging do before and after.
        seconds: Of all of it on this machine, from a probe; None without one.
        probe_tokens: Padded tokens of the batch that was probed; its plain step took `step_seconds`.
        memory: Bytes by what takes them.
        memory_checkpointing: All bytes with gradient checkpointing.
        memory_at_hand: Bytes that were free, those of the loaded model included.
    """

    steps: int
    tokens: int
    training_flop: float
    once_flop: float
    seconds: float | None
    probe_tokens: int | None
    step_seconds: float | None
    memory: Memory
    memory_checkpointing: int
    memory_at_hand: int
    terms: tuple[TermAdvice, ...]


class Advice(Data):
    """What is known of a task before it is trained.

    Attributes:
        version: The version that would be tuned.
        lengths: In tokens, by part.
        limit: What a row may have under the settings asked for.
        refused: Rows to learn or to validate on that are longer.
        already: What the model answers rightly today, freely written.
        risks: Earlier tasks, then skills, the least like first.
        left_out: From the name of a skill that is not ranked to the reason.
        pool: Whether an adapter of its own is advised, and why.
        settings: What to train with: those asked for and those proposed.
    """

    task: str
    digest: str
    version: str
    rows: dict[str, int]
    notes: tuple[str, ...]
    lengths: dict[str, Lengths]
    limit: int
    refused: tuple[str, ...]
    group: GroupAdvice
    already: Share | None
    risks: tuple[Risk, ...]
    left_out: dict[str, str]
    duplicates: tuple[Duplicates, ...]
    pool: Proposal
    proposals: tuple[Proposal, ...]
    settings: dict[str, Any]
    cost: CostAdvice
