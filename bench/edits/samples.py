"""Which facts are taught, in which order, and which of them are asked at length."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import SettingError, UnknownNameError
from perdure.requests import Fact, read_facts

RESERVED = range(201, 241)  # lines on which settings were tuned


@dataclass(frozen=True)
class Dataset:
    """A file of facts and the lines that the benchmark may use.

    Attributes:
        name: What the command line and the table call it.
        file: The file's name in the data folder.
        first: The first line, from 1.
        last: The last line.
    """

    name: str
    file: str
    first: int
    last: int

    def facts(self, folder: Path) -> tuple[Fact, ...]:
        """The usable facts, in the order of the file; lines that tuning saw are left out.

        Raises:
            RequestError: The file cannot be read.
        """
        found = read_facts(folder / self.file, skip_bad=True).facts
        return tuple(fact for fact in found if self._allows(fact) and fact.target_true is not None)

    def _allows(self, fact: Fact) -> bool:
        line = int((fact.source or "").rpartition(":")[2])
        return self.first <= line <= self.last and line not in RESERVED


DATASETS = (
    Dataset("counterfact", "counterfact_3000.jsonl", 1001, 3000),
    Dataset("zsre", "zsre_600.jsonl", 1, 600),
)


def dataset_named(name: str) -> Dataset:
    """The dataset of this name.

    Raises:
        UnknownNameError: There is none.
    """
    found = {dataset.name: dataset for dataset in DATASETS}
    if name not in found:
        raise UnknownNameError("dataset", name, found)
    return found[name]


def draw_facts(pool: Sequence[Fact], seed: int, count: int) -> tuple[Fact, ...]:
    """The first `count` facts of the pool in the seed's order: a longer sequence begins with the shorter one.

    Raises:
        SettingError: The pool is smaller.
    """
    if count > len(pool):
        raise SettingError(f"{count} facts were asked for; the dataset has {len(pool)} usable ones")
    order = list(pool)
    random.Random(seed).shuffle(order)
    return tuple(order[:count])


@dataclass(frozen=True)
class Questions:
    """What is asked of a model after some edits.

    Attributes:
        facts: All facts taught so far, in order.
        sample: Those that are also asked in other words, freely, and about their neighbours.
    """

    facts: tuple[Fact, ...]
    sample: tuple[Fact, ...]

    @classmethod
    def after(cls, facts: Sequence[Fact], seed: int, size: int) -> "Questions":
        """All the facts, and a seeded sample of at most `size` of them."""
        chosen = random.Random(seed).sample(range(len(facts)), min(size, len(facts)))
        return cls(tuple(facts), tuple(facts[index] for index in sorted(chosen)))


def batch_ends(last: int, batch_size: int) -> list[int]:
    """How many facts are done after each batch: 1, 10, then whole batches, the same for every length.

    One schedule for all lengths lets a longer run go on where a shorter one stopped.
    """
    return [end for end in sorted({1, 10, *range(batch_size, last + batch_size, batch_size)}) if end <= last]


def check_checkpoints(checkpoints: Sequence[int], batch_size: int) -> list[int]:
    """The checkpoints, sorted.

    Raises:
        SettingError: None, or one that ends no batch.
    """
    chosen = sorted(set(checkpoints))
    ends = batch_ends(chosen[-1], batch_size) if chosen else []
    odd = [checkpoint for checkpoint in chosen if checkpoint not in ends]
    if odd or not chosen:
        raise SettingError(f"checkpoints must end a batch: 1, 10, or a multiple of {batch_size}; given {odd or chosen}")
    return chosen
