"""What one model did on everything that it was asked, item by item.

A version is measured once; its outcomes are kept as JSON, and any two are compared without running again.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Answer(_Data):
    """The answer to one retention item.

    Attributes:
        item: What was asked, in words.
        expected: The right answer, or the first of several.
        written: What the model wrote. It ends in "…" where only the words up to the first wrong one are known.
        ok: Whether it is right.
    """

    item: str
    expected: str
    written: str
    ok: bool


class Passage(_Data):
    """One held-out passage.

    Attributes:
        name: Its topic and first words.
        nll: Negative log-likelihood of its scored tokens, in nats.
        tokens: How many tokens were scored.
    """

    name: str
    nll: float
    tokens: int


class EditAnswer(_Data):
    """The answer to one question about one fact.

    Attributes:
        fact: The fact's id.
        kind: "prompt", "paraphrase" or "neighbour".
        prompt: The question.
        expected: What counts as right: the new target, or the answer that must stay; None when not known.
        expected_is_given: False where `expected` is what the model before the edit wrote.
        target: The fact's new target.
        rival: What stands against `target` in the comparison of probabilities; None when not known.
        written: The first sentence of what the model freely wrote.
        exact: Whether it is the expected answer and nothing else.
        contains: Whether the expected answer stands in it.
        log_prob_new: Log-probability per token of `target` after the prompt.
        log_prob_old: The same of `rival`.
        accuracy: Share of the expected answer's tokens that are most probable (teacher-forced).
    """

    fact: str
    subject: str
    kind: str
    prompt: str
    expected: str | None
    expected_is_given: bool
    target: str
    rival: str | None
    written: str
    exact: bool
    contains: bool
    log_prob_new: float | None = None
    log_prob_old: float | None = None
    accuracy: float | None = None

    @property
    def question(self) -> tuple[str, str, str]:
        """What makes this question the one it is: fact, kind and prompt."""
        return self.fact, self.kind, self.prompt


class RippleAnswer(_Data):
    """The answer to one text of a question that follows from facts.

    Attributes:
        question: The question's id.
        role: "wording" of the whole question, or "hop", one of its single steps.
        prompt: The wording or the step.
        written: The first sentence of what the model freely wrote.
        ok: Whether the new answer, or an alias of it, stands in it.
        old_ok: Whether the old one does; None for a step, and where it is not known.
        log_prob_new: Log-probability per token of the new answer; None for a step.
        log_prob_old: The same of the old one.
        accuracy: Share of the new answer's tokens that are most probable (teacher-forced).
    """

    question: str
    role: str
    prompt: str
    written: str
    ok: bool
    old_ok: bool | None = None
    log_prob_new: float | None = None
    log_prob_old: float | None = None
    accuracy: float | None = None


class TaskReply(_Data):
    """The answer to one question of a task that a version was tuned on.

    Attributes:
        text: What was freely written.
        exact: Whether it is a right answer, but for case, outer punctuation and spacing.
        rouge: Rouge-L F1 with the nearest right answer.
    """

    text: str
    exact: bool
    rouge: float


class TaskHits(_Data):
    """One metric of one lm-eval task that is right or wrong per item.

    Attributes:
        task: The task's name.
        metric: Such as "acc" or "exact_match".
        filter: The harness's filter over the replies; "none" where there is one way only.
        how: "log-likelihood" or "free generation".
        hits: From the item's id to whether the model had it right.
    """

    task: str
    metric: str
    filter: str
    how: str
    higher_is_better: bool
    hits: Mapping[str, bool]


class Outcomes(_Data):
    """Everything one model did; a part that was not measured is empty.

    Attributes:
        suite_id: The content of the suite that retention and language were measured on.
        retention: From a part's name, such as "functions.present_past", to its answers.
        language: Held-out passages.
        edits: Questions about facts.
        removed: Questions about facts that were taken out again.
        ripple: Questions that follow from facts.
        tasks: From the digest of a task that was tuned on to the answers to its test questions.
        harness: lm-eval tasks.
    """

    format: int = 1
    suite_id: str | None = None
    retention: Mapping[str, tuple[Answer, ...]] = Field(default_factory=dict)
    language: tuple[Passage, ...] = ()
    edits: tuple[EditAnswer, ...] = ()
    removed: tuple[EditAnswer, ...] = ()
    ripple: tuple[RippleAnswer, ...] = ()
    tasks: Mapping[str, tuple[TaskReply, ...]] = Field(default_factory=dict)
    harness: tuple[TaskHits, ...] = ()

    def joined(self, *others: "Outcomes") -> "Outcomes":
        """These outcomes with the measured parts of others in place of the own ones."""
        parts = {name: value for other in others for name, value in other if name != "format" and value}
        return self.model_copy(update=parts)
