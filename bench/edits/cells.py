"""A cell of the table, and the file of finished cells: one line of JSON each, appended, never computed twice."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from perdure.errors import IntegrityError
from perdure.measuring.report import Difference, Share


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Data):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Matrices(_Data):
    """The worst of the changed matrices.

    Attributes:
        measured: How many were looked at; of dense changes the twelve with the largest relative norm.
        sigma_ratio: Largest σ_max(ΔW) / σ_max(W_base) of what is applied.
        sigma_ratio_solved: The same before the restraint.
        condition: Largest κ of an edited matrix.
        condition_ratio: Largest κ after / κ before.
    """

    measured: int
    sigma_ratio: float
    sigma_ratio_solved: float
    condition: float
    condition_ratio: float


class Seconds(_Data):
    """Seconds per edit: over the whole sequence, and in its last batch. CPU counts all threads together."""

    wall: float
    cpu: float
    last_wall: float
    last_cpu: float


class Key(_Data):
    """What makes a cell the one it is.

    Attributes:
        run: The digest of everything that decides what is solved.
        exam: The digest of what is asked.
        edits: How many facts were taught.
        form: The form of restraint under which the model was measured.
    """

    run: str
    exam: str
    edits: int
    form: str


class Cell(_Data):
    """What was measured of one row, dataset, seed, number of edits and form of restraint.

    Attributes:
        same_as: The form whose weights are the same bit for bit; its figures are then repeated here.
        failure: Why there are no figures.
        shares: By name: `prompt.likelier` (all facts), `prompt.likelier.FIRST-LAST` (an age cohort),
            `prompt.says`, `paraphrase.likelier`, `paraphrase.says`, `neighbour.likelier`, `neighbour.same_word`.
        retention: Share of exam items right, edited − original.
        perplexity: Ratio, edited / original.
        divergence: Mean KL(original ‖ edited) of the next token after neighbour questions, in nats.
        measuring_cpu: CPU seconds that measuring this cell took.
    """

    kind: Literal["cell"] = "cell"
    row: str
    dataset: str
    seed: int
    key: Key
    same_as: str | None = None
    failure: str | None = None
    shares: dict[str, Share] = {}
    retention: Difference | None = None
    perplexity: Interval | None = None
    divergence: float | None = None
    matrices: Matrices | None = None
    seconds: Seconds | None = None
    measuring_cpu: float = 0.0

    def figure(self, path: str) -> float | None:
        """A figure by its path, such as `divergence` or `matrices.sigma_ratio`; None where it was not measured."""
        part, _, name = path.partition(".")
        found = getattr(self, part)
        value: float | None = getattr(found, name) if found is not None and name else found
        return value


class Results:
    """The file of results: cells, and the machines that they were measured on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = list(_lines(path))
        self.machines = [line for line in lines if line.get("kind") == "machine"]
        self._cells = {cell.key: cell for cell in map(_cell, lines) if cell is not None}

    @property
    def cells(self) -> list[Cell]:
        """All cells; where a key stands twice, the last."""
        return list(self._cells.values())

    def find(self, key: Key) -> Cell | None:
        """The finished cell of this key."""
        return self._cells.get(key)

    def add(self, cell: Cell) -> None:
        """Keep a cell."""
        self._append(cell.model_dump(mode="json", exclude_defaults=True) | {"kind": "cell"})
        self._cells[cell.key] = cell

    def add_machine(self, machine: dict[str, Any]) -> None:
        """Keep what the coming cells are measured on, unless the last one is the same."""
        if self.machines[-1:] != [machine]:
            self._append(machine)
            self.machines.append(machine)

    def _append(self, line: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:  # several rows may run at a time and write to one file
            fcntl.flock(stream, fcntl.LOCK_EX)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            torn = size > 0 and stream.read(1) != b"\n"  # a line that a kill cut off ends here
            stream.write(b"\n" * torn + json.dumps(line, allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def latest(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each row, dataset, seed, number of edits and form: the last, where settings have changed since."""
    places = {(cell.row, cell.dataset, cell.seed, cell.key.edits, cell.key.form): cell for cell in cells}
    return list(places.values())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file; one that a kill cut off is left out."""
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _cell(line: dict[str, Any]) -> Cell | None:
    if line.get("kind") != "cell":
        return None
    try:
        return Cell.model_validate(line)
    except ValidationError as error:
        raise IntegrityError(
            f"a cell of the results file does not fit this version of the benchmark: {error}"
        ) from error
