"""Examples of earlier tasks kept to be seen again: a reservoir, bounded in rows or bytes.

Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985: after any number of rows each was kept with equal
probability. Off by default: the point of this project is to need no old data.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.content import digest_json
from perdure.requests.tasks import Example, Task
from perdure.tuning.config import ReplayConfig


@dataclass(frozen=True)
class Memory:
    """Rows of earlier tasks.

    Attributes:
        rows: The rows.
        seen: How many rows were seen in all.
    """

    rows: tuple[Example, ...] = ()
    seen: int = 0

    def with_task(self, task: Task, config: ReplayConfig, *, seed: int) -> "Memory":
        """The memory after a task's rows went by: a uniform sample of all that were ever seen."""
        drawn = random.Random(f"reservoir {seed} {self.seen} {task.digest}")
        kept, seen = list(self.rows), self.seen
        for example in task.train:
            seen += 1
            if len(kept) < config.size:
                kept.append(example)
            elif (place := drawn.randrange(seen)) < config.size:
                kept[place] = example
        return Memory(tuple(_within(kept, config.size_bytes, drawn)), seen)

    def chosen(self, task: Task, config: ReplayConfig, *, seed: int) -> list[Example]:
        """Rows to see again beside a task's own, so many that they make up the share asked for."""
        count = min(len(self.rows), round(len(task.train) * config.share / (1 - config.share)))
        if not count:
            return []
        if config.choice == "similar":
            return _similar(self.rows, task, count)
        drawn = random.Random(f"replay {seed} {digest_json([task.digest, self.seen])}")
        return drawn.sample(self.rows, count)

    def as_json(self) -> dict[str, Any]:
        """The memory as JSON."""
        return {"seen": self.seen, "rows": [row.model_dump(mode="json") for row in self.rows]}


def remembered(kept: Mapping[str, Any]) -> Memory:
    """The memory that `as_json` wrote."""
    return Memory(tuple(Example.model_validate(row) for row in kept["rows"]), int(kept["seen"]))


def size_of(example: Example) -> int:
    """Bytes of an example's text."""
    return sum(len(message.content.encode()) for message in example.messages)


def _within(rows: list[Example], limit: int | None, drawn: random.Random) -> list[Example]:
    """Rows dropped at random until the rest fits."""
    total = sum(map(size_of, rows))
    while limit is not None and rows and total > limit:
        total -= size_of(rows.pop(drawn.randrange(len(rows))))
    return rows


def _similar(rows: Sequence[Example], task: Task, count: int) -> list[Example]:
    """The rows whose words are most like the new task's (TF-IDF cosine with its centroid): those it may overwrite.

    After Wang et al., "InsCL: A Data-efficient Continual Learning Paradigm for Fine-tuning Large Language Models with
    Instructions", NAACL 2024, which replays by similarity of instructions.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [_text(row) for row in (*rows, *task.train)]
    matrix = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(texts)
    centre = np.asarray(matrix[len(rows) :].mean(axis=0)).ravel()
    likeness = matrix[: len(rows)] @ centre
    order = sorted(range(len(rows)), key=lambda place: (-float(likeness[place]), place))
    return [rows[place] for place in order[:count]]


def _text(example: Example) -> str:
    return "\n".join(message.content for message in example.messages[:-1])
