"""What a model freely writes when it is asked the questions of a task, and how right it is.

Success is judged by generation: exact match after normalisation, and Rouge-L, both against the nearest right answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode
from perdure.progress import Progress, counting, silent
from perdure.requests.tasks import Example
from perdure.tuning.encoding import prompt_ids

_MARGIN = 8  # tokens beyond the longest right answer: enough to see that a model does not stop


@dataclass(frozen=True)
class TaskAnswer:
    """One question of a task, answered.

    Attributes:
        text: What was written.
        exact: Whether it is a right answer, but for case, outer punctuation and spacing.
        rouge: Rouge-L F1 with the nearest right answer.
    """

    text: str
    exact: bool
    rouge: float


def answer_task(
    model: Any, tokenizer: Any, examples: Sequence[Example], *, progress: Progress = silent, stage: str = "asking"
) -> list[TaskAnswer]:
    """The model's answers, greedily written, in the order of the examples."""
    if not examples:
        return []
    rows = [prompt_ids(tokenizer, example) for example in examples]
    answers = [example.references or (example.answer,) for example in examples]
    longest = max(len(encode(tokenizer, text)) for given in answers for text in given)
    add = counting(progress, stage, len(examples))
    texts = continue_rows(
        model, tokenizer, rows, lambda _row, text: "\n\n" in text, max_new_tokens=longest + _MARGIN, on_done=add
    )
    return [judged(text, given) for text, given in zip(texts, answers, strict=True)]


def judged(text: str, references: Sequence[str]) -> TaskAnswer:
    """One answer against all right ones."""
    exact = any(normalised(text) == normalised(reference) for reference in references)
    return TaskAnswer(text.strip(), exact, max(rouge_l(text, reference) for reference in references))


def normalised(text: str) -> str:
    """The text in one line and lower case, without punctuation around it."""
    return " ".join(text.split()).casefold().strip(" .,:;!?\"'`*")


def rouge_l(text: str, reference: str) -> float:
    """Rouge-L F1 (Lin 2004), by the rouge-score library, without stemming."""
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def exact_share(answers: Sequence[TaskAnswer]) -> float:
    """The share of exact answers."""
    return mean(answer.exact for answer in answers)
