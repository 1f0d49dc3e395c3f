"""Facts and tasks across versions, as they are handed out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """A fact or task that a search found.

    Attributes:
        id: The fact's id, or the task's digest.
        kind: "fact" or "task".
        shown: Of a fact subject, prompt, target_new, target_true, source; of a task name, instruction, train_rows.
        version: The newest version that was taught it.
        requester: Who asked for that version.
        time: When, UTC, ISO 8601.
        holds: Whether the newest report that asked found it answered as taught (of a task: every question); None
            where none asked.
    """

    id: str
    kind: str
    shown: Mapping[str, Any]
    version: str
    requester: str
    time: str
    holds: bool | None


@dataclass(frozen=True)
class Teaching:
    """A version that was taught a fact or task, or made to be without it; who asked, when."""

    id: str
    shown: Mapping[str, Any]
    version: str
    requester: str
    time: str


@dataclass(frozen=True)
class Answer:
    """How many of the questions about a fact or task a report of a version found answered as taught."""

    version: str
    hits: int
    n: int


@dataclass(frozen=True)
class Lineage:
    """Everything about one fact or task.

    Attributes:
        id: The fact's id, or the task's digest.
        kind: "fact" or "task".
        shown: What people see of it, as for `Found`.
        taught: The versions that were taught it, oldest first.
        removed: The versions that were made to be without it.
        lives_in: The names of all versions that hold it: taught it or standing on one, and not overwritten since.
        served_by: The aliases that hold such a version.
        conflicts: Facts with the same prompt and another answer.
        answers: What reports found, the newest last.
    """

    id: str
    kind: str
    shown: Mapping[str, Any]
    taught: tuple[Teaching, ...]
    removed: tuple[Teaching, ...]
    lives_in: tuple[str, ...]
    served_by: tuple[str, ...]
    conflicts: tuple[Teaching, ...]
    answers: tuple[Answer, ...]

    @property
    def holds(self) -> bool | None:
        """Whether the newest report that asked found every question answered as taught; None where none asked."""
        return None if not self.answers else self.answers[-1].hits == self.answers[-1].n
