"""Examples of earlier tasks kept to be seen again: a uniform sample, bounded in rows or bytes.

Each row gets a random key as it goes by, and those with the smallest keys stay (bottom-k sampling; Cohen and Kaplan,
"Summarizing data using bottom-k sketches", PODC 2007): whatever was dropped on the way, every row was kept with equal
probability. Off by default: the point of this project is to need no old data.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from perdure.content import digest_json
from perdure.requests.tasks import Example, Task
from perdure.tuning.config import ReplayConfig


@dataclass(frozen=True)
class Memory:
    """Rows of earlier tasks.

    Attributes:
        rows: The rows, by their keys.
        seen: How many rows were seen in all.
        keys: The key of each, in [0, 1), rising.
        bound: The smallest key that was dropped; a row whose key is not below it is not kept.
    """

    rows: tuple[Example, ...] = ()
    seen: int = 0
    keys: tuple[float, ...] = ()
    bound: float = 1.0

    def with_task(self, task: Task, config: ReplayConfig, *, seed: int) -> "Memory":
        """The memory after a task's rows went by: a uniform sample of all that were ever seen.

        Rows that are larger than all bytes there are count as seen and are never kept.
        """
        drawn = random.Random(f"reservoir {seed} {self.seen} {task.digest}")
        new = [(drawn.random(), example) for example in task.train]
        limit = float("inf") if config.size_bytes is None else config.size_bytes
        known = [*zip(self.keys, self.rows, strict=True), *(each for each in new if each[0] < self.bound)]
        found = sorted((each for each in known if size_of(each[1]) <= limit), key=itemgetter(0))
        count = _fitting([row for _, row in found], config.size, limit)
        keys, rows = [key for key, _ in found], [row for _, row in found]
        bound = keys[count] if count < len(keys) else self.bound
        return Memory(tuple(rows[:count]), self.seen + len(new), tuple(keys[:count]), bound)

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
        rows = [row.model_dump(mode="json") for row in self.rows]
        return {"seen": self.seen, "rows": rows, "keys": list(self.keys), "bound": self.bound}


def remembered(kept: Mapping[str, Any]) -> Memory:
    """The memory that `as_json` wrote; one from before rows had keys gets such as they would have."""
    rows, seen = [Example.model_validate(row) for row in kept["rows"]], int(kept["seen"])
    if "keys" in kept:
        return Memory(tuple(rows), seen, tuple(map(float, kept["keys"])), float(kept["bound"]))
    drawn = random.Random(f"keys {digest_json(kept)}")
    keys = [*sorted(drawn.random() for _ in range(seen)), 1.0]
    return Memory(tuple(drawn.sample(rows, len(rows))), seen, tuple(keys[: len(rows)]), keys[len(rows)])


def size_of(example: Example) -> int:
    """Bytes of an example's text."""
    return sum(len(message.content.encode()) for message in example.messages)


def _fitting(rows: Sequence[Example], most: int, limit: float) -> int:
    """How many of the first rows fit."""
    total, count = 0, 0
    for row in rows[:most]:
        total += size_of(row)
        if total > limit:
            break
        count += 1
    return count


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
