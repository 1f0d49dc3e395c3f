"""The report of a candidate: what was asked, what was learnt, what was lost, where the weights moved.

These classes are data. Shares carry n and a 95% interval; differences are paired (after − before on the
same items). `before` is the parent version; where the parent is not the base, the base stands beside it.
"""

from typing import Any

from pydantic import Field

from perdure.measuring.concepts import ConceptMeasures
from perdure.measuring.continual import TaskMeasures
from perdure.measuring.course import Course
from perdure.measuring.neurons import NeuronMeasures
from perdure.measuring.pooled import PoolMeasures
from perdure.measuring.shares import Comparison as Comparison  # noqa: PLC0414 - part of the report for its readers
from perdure.measuring.shares import Data as _Data
from perdure.measuring.shares import Difference as Difference  # noqa: PLC0414
from perdure.measuring.shares import Share as Share  # noqa: PLC0414
from perdure.measuring.skills import SkillMeasures
from perdure.measuring.traced import TraceMeasures
from perdure.measuring.watched import WatchedMeasures


class Case(_Data):
    """One question about one fact, answered before and after.

    Attributes:
        fact: The fact's id.
        kind: "prompt", "paraphrase" or "neighbour".
        expected: The answer that is right after the edit; None where the answer of before must stay.
        before: What the parent freely wrote.
        after: What the candidate freely wrote.
        before_ok: Whether `before` contains the expected answer.
        after_ok: Whether `after` does.
        probability_before: p(new) / (p(new) + p(old)) of the length-normalised answers, where both are known.
    """

    fact: str
    subject: str
    kind: str
    prompt: str
    expected: str | None
    before: str
    after: str
    before_ok: bool
    after_ok: bool
    probability_before: float | None = None
    probability_after: float | None = None


class EditMeasures(_Data):
    """How well the facts were learnt: shares per kind of question and way of judging, and every case."""

    facts: int
    comparisons: tuple[Comparison, ...]
    cases: tuple[Case, ...]


class RemovedCase(_Data):
    """One question about a fact that was taken out again.

    Attributes:
        fact: The fact's id.
        kind: "prompt" or "paraphrase".
        taught: The answer that had been taught.
        original: What the model wrote before it was taught.
        before: What the version that it was taken out of wrote.
        after: What the candidate writes.
        gone: Whether the taught answer does not stand in `after`, or stood in `original` already.
        back: Whether the original answer is back.
        probability_original: p(taught) / (p(taught) + p(old)) of the length-normalised answers, where both are known.
    """

    fact: str
    subject: str
    kind: str
    prompt: str
    taught: str
    original: str
    before: str
    after: str
    gone: bool
    back: bool
    probability_original: float | None = None
    probability_before: float | None = None
    probability_after: float | None = None


class RemovalMeasures(_Data):
    """Whether facts that were taken out are gone, and whether the others kept their answers.

    Attributes:
        facts: How many were taken out.
        original: The version before any of them was taught.
        gone: Of their questions, those where the taught answer is gone.
        back: Of their questions, those where the original answer is back.
        cases: Every question about them.
        unchanged: Questions about the other facts that are answered word for word as before; None without any.
    """

    facts: int
    original: str
    gone: Share
    back: Share
    cases: tuple[RemovedCase, ...]
    unchanged: Comparison | None = None


class RippleWording(_Data):
    """One wording of a question that follows from facts, answered before and after.

    Attributes:
        before: What the parent freely wrote.
        after: What the candidate freely wrote.
        before_ok: Whether the new answer, or an alias of it, stands in `before`.
        after_ok: Whether it stands in `after`.
        before_old: Whether the old answer stands in `before`; None where it is not known.
        after_old: Whether it stands in `after`.
        probability_before: p(new) / (p(new) + p(old)) of the length-normalised answers, where both are known.
        chosen_before: Whether every token of the new answer is the most probable (teacher-forced).
    """

    prompt: str
    before: str
    after: str
    before_ok: bool
    after_ok: bool
    before_old: bool | None = None
    after_old: bool | None = None
    probability_before: float | None = None
    probability_after: float | None = None
    chosen_before: bool | None = None
    chosen_after: bool | None = None


class RippleHop(_Data):
    """One single step of such a question, answered before and after."""

    prompt: str
    expected: str
    before: str
    after: str
    before_ok: bool
    after_ok: bool


class RippleCase(_Data):
    """One question whose answer follows from facts that were taught.

    Attributes:
        question: Its id.
        kind: What it tests, such as "multi-hop" or "Subject_Aliasing".
        subject: Of the first fact that it needs.
        expected: What is right after the edit.
        old: What was right before; None when not known.
        wordings: Every way in which it was asked; it counts as answered where one of them is.
        hops: Its single steps.
    """

    question: str
    kind: str
    subject: str
    expected: str
    old: str | None = None
    wordings: tuple[RippleWording, ...]
    hops: tuple[RippleHop, ...]

    @property
    def before_ok(self) -> bool:
        """Whether the parent gives the new answer to any wording."""
        return any(wording.before_ok for wording in self.wordings)

    @property
    def after_ok(self) -> bool:
        """Whether the candidate does."""
        return any(wording.after_ok for wording in self.wordings)

    @property
    def steps_before_ok(self) -> bool:
        """Whether the parent answers every single step."""
        return all(hop.before_ok for hop in self.hops)

    @property
    def steps_after_ok(self) -> bool:
        """Whether the candidate does."""
        return all(hop.after_ok for hop in self.hops)


class RippleMeasures(_Data):
    """Whether the model draws on the new facts to answer what follows from them.

    Attributes:
        comparisons: Shares per kind of question and way of judging.
        cases: Every question.
        joined: Of the questions of several steps whose every step the candidate answers, those it answers.
        left_out: From a reason, in words, to how many questions were not asked for it.
        summary: What the figures say, in one or two sentences.
        examples: What every question was preceded by when it was asked.
    """

    comparisons: tuple[Comparison, ...]
    cases: tuple[RippleCase, ...]
    joined: Share | None = None
    left_out: dict[str, int] = Field(default_factory=dict)
    summary: str
    examples: str


class RetentionMeasures(_Data):
    """What the model could do before and still can: one comparison per part and one over everything."""

    overall: Comparison
    parts: tuple[Comparison, ...]
    lost: tuple[str, ...] = Field((), description="Items right before and wrong after, in words, at most 50")
    lost_count: int = Field(0, description="How many items are right before and wrong after")
    gained: int = Field(0, description="How many items are wrong before and right after")
    kept: Share | None = Field(None, description="Of the items right before, those still right")
    kept_of_base: Share | None = Field(None, description="Of the items that the base has right, those still right")


class LanguageMeasures(_Data):
    """Perplexity over held-out text; ratio = after / before with a 95% interval over passages."""

    passages: int
    tokens: int
    perplexity_before: float
    perplexity_after: float
    ratio: float
    ratio_low: float
    ratio_high: float
    perplexity_base: float | None = None
    ratio_to_base: float | None = None


class MatrixMeasures(_Data):
    """One changed matrix, against the base of the lineage.

    Attributes:
        name: The tensor's name.
        layer: The decoder block, where there is one.
        shape: (rows, columns).
        rank: Rank of the accumulated factors; None for a dense change.
        norm: ‖ΔW‖_F of the accumulated change.
        relative_norm: ‖ΔW‖_F / ‖W_base‖_F.
        sigma_max_base: Largest singular value of W_base.
        sigma_max_delta: Largest singular value of ΔW as applied.
        sigma_max_solved: Largest singular value of ΔW before the restraint.
        condition_before: κ(W_base).
        condition_after: κ(W_base + ΔW).
        singular_values: The largest singular values of ΔW as applied, descending (at most 32).
        singular_values_solved: The same before the restraint.
    """

    name: str
    layer: int | None
    shape: tuple[int, int]
    rank: int | None
    norm: float
    relative_norm: float
    sigma_max_base: float
    sigma_max_delta: float
    sigma_max_solved: float
    condition_before: float
    condition_after: float
    singular_values: tuple[float, ...]
    singular_values_solved: tuple[float, ...]


class Spent(_Data):
    """What a version and all that it stands on did since the base.

    Attributes:
        versions: How many versions there are since the base.
        facts: Facts taught, those counted that were overwritten since.
        tasks: Tasks learnt.
        flops: Floating-point operations of all trainings; None where one did not note them.
    """

    versions: int
    facts: int
    tasks: int
    flops: float | None = None


class Verdict(_Data):
    """What one gate says: "pass", "fail" or "inconclusive", with the reason in a plain sentence."""

    gate: str
    verdict: str
    reason: str


class Report(_Data):
    """Everything that is known about a candidate when somebody decides on it."""

    format: int = 1
    version: str = Field(description="Such as v1")
    version_id: str
    parent: str
    base: str
    model: str = Field(description="Where the base came from")
    encoder: bool = Field(False, description="Whether the model is an encoder, which writes nothing")
    request: dict[str, Any] = Field(description="Editor, restraint, resolved settings, facts asked for")
    edits: EditMeasures | None = None
    removal: RemovalMeasures | None = None
    ripple: RippleMeasures | None = None
    retention: RetentionMeasures | None = None
    language: LanguageMeasures | None = None
    matrices: tuple[MatrixMeasures, ...] = ()
    spent: Spent | None = Field(None, description="What was done since the base, this version included")
    course: Course | None = Field(None, description="The edit batch by batch, and all earlier facts by age")
    neurons: NeuronMeasures | None = Field(None, description="Each neuron's case, where the editor judges neurons")
    trace: TraceMeasures | None = Field(None, description="Where the base carries known facts, when it was traced")
    skills: SkillMeasures | None = Field(None, description="What became of skills, when two versions were compared")
    tasks: TaskMeasures | None = Field(None, description="The tasks of the lineage, where it was tuned on any")
    concepts: ConceptMeasures | None = Field(None, description="What an encoder recognises, where it was probed")
    watched: WatchedMeasures | None = Field(None, description="Concepts found without labels, where any are watched")
    pool: PoolMeasures | None = Field(None, description="The adapters that it answers with, where it has a pool")
    harness: tuple[Comparison, ...] = Field((), description="lm-eval tasks, when asked for")
    verdicts: tuple[Verdict, ...] = ()
    verdict: str = Field("inconclusive", description="pass, fail or inconclusive, over all gates")
    storage: dict[str, int] = Field(default_factory=dict, description="Bytes: added, model")
    environment: dict[str, Any] = Field(default_factory=dict, description="Library versions, machine class, seeds")
    seconds: dict[str, float] = Field(default_factory=dict, description="Time taken per step")
