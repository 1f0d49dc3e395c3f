"""A lineage that was tuned on one task after another, as data: what was learnt, what was kept, what was forgotten."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from perdure.measuring.shares import Comparison, Data, Difference, Estimate, Share


class Cell(Data):
    """How one version answered the questions of one task, item by item.

    Attributes:
        exact: 1 for a right answer, 0 for another.
        rouge: Rouge-L of each answer, to three digits.
    """

    exact: tuple[int, ...]
    rouge: tuple[float, ...]


class MeanComparison(Data):
    """A mean of scores before and after on the same items; differences are paired."""

    before: Estimate
    after: Estimate
    difference: Difference
    base: Estimate | None = None
    against_base: Difference | None = None


class ContinualFigures(Data):
    """The four figures of continual learning, each with an interval by a paired bootstrap over the items.

    Attributes:
        average: Mean over the tasks, as they are answered now.
        new: Mean over the tasks, each as it was answered just after it was learnt.
        forgetting: Mean over earlier tasks of the best score since each was learnt, less that of now; at least 0.
        backward_transfer: Mean over earlier tasks of the score of now, less that of just after each was learnt.
    """

    average: Estimate
    new: Estimate
    forgetting: Estimate | None = Field(None, description="None where no task is older than the last version")
    backward_transfer: Estimate | None = Field(None, description="None where no task is older than the last version")


class TaskMeasure(Data):
    """One task of the lineage, asked before, after, and of the base.

    Attributes:
        digest: Of the task's content.
        name: What it is called.
        instruction: What all its examples ask, or empty.
        train_rows: Examples that it was learnt from.
        version: The version that learnt it.
        exact: Right answers.
        rouge: Rouge-L.
        since: Right answers now less those just after it was learnt; None for the task that was learnt last.
    """

    digest: str
    name: str
    instruction: str
    train_rows: int
    version: str
    exact: Comparison
    rouge: MeanComparison
    since: Difference | None = None


class Stage(Data):
    """One row of the matrix R: a version of the lineage, and the tasks that it was asked.

    Attributes:
        version: Its name.
        learnt: The digest of the task that it was tuned on; empty for the base, and where it was made otherwise.
        exact: From a task's digest to the share of right answers.
        rouge: From a task's digest to the mean Rouge-L.
    """

    version: str
    learnt: str = ""
    exact: Mapping[str, Share]
    rouge: Mapping[str, float]


class TaskCase(Data):
    """One question of one task, answered before and after; long texts are cut.

    Attributes:
        task: The task's digest.
        question: All that stands before the answer.
        expected: The right answer, or the first of several.
    """

    task: str
    question: str
    expected: str
    before: str
    after: str
    before_ok: bool
    after_ok: bool


class FeatureDrift(Data):
    """How far the hidden states are from the base's on held-out passages: 0 for equal, 2 for unrelated ones.

    Attributes:
        mean: Over blocks and tokens, then over passages.
        blocks: The blocks whose outputs were read.
        by_block: The mean of each.
    """

    mean: Estimate
    blocks: tuple[int, ...]
    by_block: tuple[float, ...]


class Training(Data):
    """What the tuning that made the version noted.

    Attributes:
        log: An entry for each time that something was logged: step, loss, eval_loss, regularizer/NAME.
        averaging: How the trained weights were averaged with those of before.
        seconds: What it took.
        rows: Rows that were read, replay and anchors included.
    """

    log: tuple[Mapping[str, float], ...] = ()
    averaging: Mapping[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0


class TaskMeasures(Data):
    """The tasks of a lineage.

    Attributes:
        learnt: The digest of the task that this version was tuned on; empty where it was made otherwise.
        tasks: Every task that has test questions, the oldest first.
        stages: The base and every tuned version, then this version: the rows of R.
        exact: The figures over right answers; None where no task has test questions.
        rouge: The figures over Rouge-L.
        zero_shot: General tasks without examples (GP).
        in_context: General tasks with examples (IP).
        drift: How far the hidden states are from the base's.
        shifts: From a skill to how far its vector moved, where skills were compared.
        training: What the tuning noted; None for a version that was not tuned.
        cases: Questions with their answers, at most 200.
        questions: How many were asked.
        items: From a task's digest to this version's answers, so that a later one need not ask it again.
        unasked: Names of tasks without test questions.
    """

    learnt: str = ""
    tasks: tuple[TaskMeasure, ...] = ()
    stages: tuple[Stage, ...] = ()
    exact: ContinualFigures | None = None
    rouge: ContinualFigures | None = None
    zero_shot: Comparison | None = None
    in_context: Comparison | None = None
    drift: FeatureDrift | None = None
    shifts: Mapping[str, float] = Field(default_factory=dict)
    training: Training | None = None
    cases: tuple[TaskCase, ...] = ()
    questions: int = 0
    items: Mapping[str, Cell] = Field(default_factory=dict)
    unasked: tuple[str, ...] = ()

    @property
    def newest(self) -> TaskMeasure | None:
        """The task that this version was tuned on, where it has test questions."""
        return next((task for task in self.tasks if task.digest == self.learnt), None)

    @property
    def earlier(self) -> tuple[TaskMeasure, ...]:
        """The tasks that versions before this one were tuned on."""
        return tuple(task for task in self.tasks if task.since is not None)
