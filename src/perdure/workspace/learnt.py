"""What a lineage was taught, and which rows of a new task ask nearly the same."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.measuring.advice import Duplicates
from perdure.measuring.task_answers import normalised
from perdure.measuring.task_likeness import near_duplicates
from perdure.requests.tasks import Example, Task
from perdure.tuning.run import pairs_of
from perdure.workspace.records import Version
from perdure.workspace.tuning import kept_tests

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_SHOWN = 3


@dataclass(frozen=True)
class Learnt:
    """A task that is learnt before the one advised on: by a version of the lineage, or earlier in the plan.

    Attributes:
        instructions: What it was asked with; none where its rows did not say.
        test: Its test rows.
    """

    name: str
    digest: str
    instructions: tuple[str, ...]
    test: tuple[Example, ...]


def learnt_by(shop: "Workspace", version: Version) -> list[Learnt]:
    """The tasks of a version's lineage, the oldest first; of a task that was learnt twice the newest."""
    found: dict[str, Learnt] = {}
    for step in shop.archive.lineage(version)[1:]:
        task = shop.archive.solved(step).notes.get("task")
        if task:
            test = kept_tests(shop, step)
            said = task.get("instruction") or ""
            instructions = (said,) if said else tuple(sorted({row.instruction for row in test if row.instruction}))
            found[task["digest"]] = Learnt(task["name"], task["digest"], instructions, test)
    return list(found.values())


def instructions_of(task: Task) -> tuple[str, ...]:
    """The different instructions of a task's rows."""
    return tuple(sorted({example.instruction for example in task.train if example.instruction.strip()}))


def duplicates_with(task: Task, earlier: Learnt) -> Duplicates:
    """The rows to learn that ask nearly what kept test rows of an earlier task ask."""
    asked = [pair[0] for pair in pairs_of(task.train)]
    found = near_duplicates(asked, [pair[0] for pair in pairs_of(earlier.test)])
    against = [
        (task.train[place], earlier.test[other])
        for place, other, _ in found
        if not set(map(normalised, task.train[place].references)) & set(map(normalised, earlier.test[other].references))
    ]
    shown = against or [(task.train[place], earlier.test[other]) for place, other, _ in found]
    return Duplicates(
        task=earlier.name,
        rows=len(found),
        conflicting=len(against),
        examples=tuple((_place(one), _place(other)) for one, other in shown[:_SHOWN]),
    )


def _place(example: Example) -> str:
    return example.source or example.messages[-2].content[:60]
