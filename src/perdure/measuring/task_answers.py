"""What a model freely writes when it is asked the questions of a task, and how right it is.

Success is judged by generation: exact match after normalisation, and Rouge-L, both against the nearest right answer.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode, is_unspaced
from perdure.progress import Progress, counting, silent
from perdure.requests.tasks import Example
from perdure.tuning.encoding import Row, row_of
from perdure.tuning.writing import continue_shown

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
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    processor: Any | None = None,
    progress: Progress = silent,
    stage: str = "asking",
) -> list[TaskAnswer]:
    """The model's answers, greedily written, in the order of the examples.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        examples: The questions, each with its right answers.
        processor: Of a model that reads images, as in training.
        progress: Told how many are answered.
        stage: What the work is called there.

    Raises:
        RequestError: A question shows an image that cannot be read, or one and there is no processor.
    """
    if not examples:
        return []
    answers = [example.references or (example.answer,) for example in examples]
    limit = max(len(encode(tokenizer, text)) for given in answers for text in given) + _MARGIN
    rows = [row_of(tokenizer, example, processor) for example in examples]
    add, texts = counting(progress, stage, len(examples)), [""] * len(examples)
    for seeing, write in ((False, _continued), (True, continue_shown)):
        places = [place for place, row in enumerate(rows) if (row.shown is not None) == seeing]
        enough = partial(_enough, [answers[place] for place in places])
        found = write(model, tokenizer, [rows[place] for place in places], enough, max_new_tokens=limit, on_done=add)
        for place, text in zip(places, found, strict=True):
            texts[place] = text
    return [judged(text, given) for text, given in zip(texts, answers, strict=True)]


def _enough(answers: Sequence[Sequence[str]], row: int, text: str) -> bool:
    """A blank line after something ends an answer, unless a right one has such a line: the next question is made up."""
    return "\n\n" in text.lstrip() and not any("\n\n" in answer for answer in answers[row])


def _continued(model: Any, tokenizer: Any, rows: Sequence[Row], enough: Any, **more: Any) -> list[str]:
    return continue_rows(model, tokenizer, [row.prompt for row in rows], enough, **more)


def judged(text: str, references: Sequence[str]) -> TaskAnswer:
    """One answer against all right ones."""
    exact = any(normalised(text) == normalised(reference) for reference in references)
    return TaskAnswer(text.strip(), exact, max(rouge_l(text, reference) for reference in references))


def normalised(text: str) -> str:
    """The text in one line and lower case, without punctuation around it."""
    return " ".join(text.split()).casefold().strip(" .,:;!?\"'`*")


def rouge_l(text: str, reference: str) -> float:
    """Rouge-L F1 (Lin 2004), by the rouge-score library, without stemming.

    The library's own words are of the letters a to z only: of any other script none would be left.
    """
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:
    """The words of a text as the library cuts them, of every script."""

    def tokenize(self, text: str) -> list[str]:
        """Runs of letters, marks and digits in lower case; characters where no spaces are written, or no words."""
        kept = [char if unicodedata.category(char)[0] in "LMN" else " " for char in text.lower()]
        words = "".join(f" {char} " if is_unspaced(char) else char for char in kept).split()
        return words or [char for char in text if not char.isspace()]
