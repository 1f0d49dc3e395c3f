"""One sequence of edits: batch after batch, each timed and kept, so that a killed run goes on where it was."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.edits.rows import Row, restrain
from bench.edits.samples import batch_ends
from perdure.deltas import Delta, load_delta, save_delta
from perdure.editing import Moments, Surroundings, applied
from perdure.errors import EditError, SettingError
from perdure.registry import editors
from perdure.requests import Fact

Ceilings = Callable[[Delta], Mapping[str, float]]
"""From a delta to the largest singular value of the base of each matrix that it changes."""


@dataclass(frozen=True)
class Batch:
    """How long one batch took to solve.

    Attributes:
        facts: How many facts it has.
        wall: Seconds by the clock.
        cpu: Seconds of all threads together.
    """

    facts: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Solved:
    """What a sequence has solved so far.

    Attributes:
        done: How many facts.
        delta: The sum of what the editor solved, with its keys.
        batches: One entry for each batch.
        failure: Why the editor gave up, if it did.
    """

    done: int = 0
    delta: Delta = field(default_factory=Delta)
    batches: tuple[Batch, ...] = ()
    failure: str | None = None

    def save(self, path: Path) -> None:
        """Write to one file, atomically."""
        notes = {"done": self.done, "batches": [vars(batch) for batch in self.batches], "failure": self.failure}
        save_delta(Delta(self.delta.changes, self.delta.keys, notes), path)

    @classmethod
    def load(cls, path: Path) -> "Solved":
        """Read what `save` wrote."""
        found = load_delta(path)
        batches = tuple(Batch(**batch) for batch in found.notes["batches"])
        return cls(found.notes["done"], Delta(found.changes, found.keys), batches, found.notes["failure"])

    @property
    def is_small(self) -> bool:
        """Whether it is made of factors only: some megabytes, not a copy of the matrices."""
        return all(change.is_low_rank for change in self.delta.changes.values())


@dataclass(frozen=True)
class Course:
    """One row of the table run over one order of facts.

    Attributes:
        model: The base; it has its own weights whenever nothing is being solved.
        tokenizer: Its tokenizer.
        facts: All facts, in order.
        row: What is run.
        seed: The run's seed.
        batch_size: Facts solved together.
        folder: Where what was solved is kept.
        moments: Second moments of the base.
        ceilings: σ_max of the base's matrices.
    """

    model: Any
    tokenizer: Any
    facts: Sequence[Fact]
    row: Row
    seed: int
    batch_size: int
    folder: Path
    moments: Moments
    ceilings: Ceilings

    def until(self, goal: int, keep: Sequence[int] = (), on_batch: Callable[[Solved], None] = lambda _: None) -> Solved:
        """What is solved after `goal` facts, taken up from the folder where a part of it is there.

        A failure of the editor ends the sequence; it is part of what is given.

        Args:
            goal: How many facts; the end of a batch.
            keep: Numbers of facts whose files stay when the sequence has gone on, where they are small.
            on_batch: Told what is solved after each batch.
        """
        solved = self._saved(goal)
        for end in batch_ends(goal, self.batch_size):
            if end <= solved.done or solved.failure:
                continue
            before, solved = solved, self._add(solved, end)
            solved.save(self._file(end))
            if before.done and not (before.done in keep and before.is_small):
                self._file(before.done).unlink(missing_ok=True)
            on_batch(solved)
        return solved

    def carried(self, delta: Delta) -> Delta:
        """The accumulated update as the next batch finds it."""
        return restrain(delta, self.ceilings(delta), self.row.inside)

    def _add(self, solved: Solved, end: int) -> Solved:
        """One more batch. The model is set anew from the base each time, so going on later gives the same bits."""
        keys = solved.delta.keys if self.row.keeps_keys else {}
        batch = self.facts[solved.done : end]
        method, config = editors.get(self.row.editor), self.row.config(self.seed)
        try:
            self._warm  # noqa: B018 - statistics and factors are no part of the time of an edit
            with applied(self.model, self.carried(solved.delta)):
                wall, cpu = time.perf_counter(), time.process_time()
                earlier = self.facts[: solved.done] if self.row.keeps_keys else ()
                around = Surroundings(keys, self.moments, earlier=earlier, carried=max(end, self.row.announced))
                step = method.call(self.model, self.tokenizer, batch, config, around)
                took = Batch(len(batch), time.perf_counter() - wall, time.process_time() - cpu)
        except (EditError, SettingError) as error:
            return Solved(end, solved.delta, solved.batches, f"facts {solved.done + 1} to {end}: {error}")
        total = solved.delta + step
        kept = total.keys if self.row.keeps_keys else {}
        return Solved(end, Delta(total.changes, kept), (*solved.batches, took))

    @cached_property
    def _warm(self) -> bool:
        """One edit that is thrown away: it computes, or reads, what later edits find ready."""
        config = self.row.config(self.seed)
        editors.get(self.row.editor).call(
            self.model, self.tokenizer, self.facts[:1], config, Surroundings(moments=self.moments)
        )
        return True

    def _saved(self, goal: int) -> Solved:
        ends = [end for end in batch_ends(goal, self.batch_size) if self._file(end).is_file()]
        return Solved.load(self._file(ends[-1])) if ends else Solved()

    def _file(self, done: int) -> Path:
        return self.folder / f"facts-{done:05}.safetensors"
