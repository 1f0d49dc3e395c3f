"""The tasks of a lineage, asked of its versions; what was asked before is not asked again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from perdure.content import digest_json
from perdure.measuring.continual import Cell, FeatureDrift, TaskMeasures
from perdure.measuring.outcomes import Outcomes, TaskReply
from perdure.measuring.suites import Suite
from perdure.measuring.task_measures import (
    Answered,
    Beside,
    LineageTask,
    StageCells,
    build_tasks,
    cell_of,
    training_of,
)
from perdure.requests.tasks import Example
from perdure.workspace.pools import asked_through
from perdure.workspace.records import Version
from perdure.workspace.remembering import labelled, once
from perdure.workspace.seeing import processor_for
from perdure.workspace.skills import known_skills

if TYPE_CHECKING:
    from perdure.measuring.drift import Features
    from perdure.workspace.workspace import Workspace

_DRIFT = "drift"


class LineageTasks:
    """The tasks that a lineage was tuned on, and what its versions answer. Without tasks, nothing is ever run.

    Attributes:
        tasks: Each once, where it was learnt first; the oldest first.
    """

    def __init__(self, shop: "Workspace", line: Sequence[Version]) -> None:
        self._shop, self._line = shop, line
        learnt = {step.id: found for step in line if (found := _task_of(shop, step))}
        self._learnt = {step: task.digest for step, task in learnt.items()}
        first: dict[str, LineageTask] = {}
        for task in learnt.values():
            first.setdefault(task.digest, task)
        self.tasks = tuple(first.values())
        self._features: dict[str, Features] = {}

    def outcomes(self, version: Version) -> Outcomes:
        """What a version answers to the test questions of all tasks; its model is loaded for what is not known.

        For the base and the version measured, hidden states are read while the model is at hand.
        """
        found = Outcomes(tasks=self._replies(version, self.tasks))
        if self.tasks and version.id in (self._line[0].id, self._line[-1].id):
            self._read(version)
        return found

    def measures(
        self, before: Outcomes, after: Outcomes, base: Outcomes | None, parent: Version
    ) -> TaskMeasures | None:
        """What the report says of the tasks; None without any.

        Args:
            before: Of the version that this one is held against, its answers to the tasks included.
            after: Of the version.
            base: Of the base, where that is another.
            parent: The version that this one is held against.
        """
        if not self.tasks:
            return None
        base_step, version = self._line[0], self._line[-1]
        known = {base_step.id: base or before, parent.id: before, version.id: after}
        rows = [step for step in self._line[1:-1] if step.id in self._learnt]
        stages = [
            StageCells(step.name, self._learnt.get(step.id, ""), self._cells(step, known.get(step.id)))
            for step in (base_step, *rows, version)
        ]
        notes = self._shop.archive.solved(version).notes
        beside = Beside(self._drift(), known_skills(self._shop, version), training_of(notes))
        return build_tasks(self.tasks, stages, Answered(before, after, base), beside)

    def _replies(self, version: Version, tasks: Sequence[LineageTask]) -> dict[str, tuple[TaskReply, ...]]:
        return {task.digest: _asked(self._shop, version, task).tasks[task.digest] for task in tasks if task.test}

    def _cells(self, step: Version, known: Outcomes | None) -> dict[str, Cell]:
        """A version's answers to the tasks that it had learnt: at hand, from its report, or asked now."""
        if known is not None:
            return {digest: cell_of(replies) for digest, replies in known.tasks.items()}
        until = [past.id for past in self._line[: self._line.index(step) + 1]]
        had = {self._learnt[past] for past in until if past in self._learnt}
        tasks = [task for task in self.tasks if task.digest in had and task.test]
        cells = _reported(self._shop, step, tasks)
        missing = [task for task in tasks if task.digest not in cells]
        return cells | {digest: cell_of(replies) for digest, replies in self._replies(step, missing).items()}

    def _read(self, version: Version) -> None:
        from perdure.measuring.drift import read_features

        if version.id in self._features or self._known_drift() is not None or not Suite.built_in().passages:
            return
        model, tokenizer = self._shop.load(version)
        progress = labelled(self._shop, version)
        self._features[version.id] = read_features(model, tokenizer, Suite.built_in(), progress)

    def _drift(self) -> FeatureDrift | None:
        """How far the version's hidden states are from the base's, computed once."""
        from perdure.measuring.drift import drift_of

        known = self._known_drift()
        if known is None and len(self._features) == 2:
            known = drift_of(self._features[self._line[0].id], self._features[self._line[-1].id])
            self._shop.archive.remember(_DRIFT, self._drift_key(), known.model_dump(mode="json"))
        return known

    def _known_drift(self) -> FeatureDrift | None:
        found = self._shop.archive.recall(_DRIFT, self._drift_key())
        return None if found is None else FeatureDrift.model_validate(found)

    def _drift_key(self) -> str:
        return digest_json([self._line[0].id, self._line[-1].id, Suite.built_in().id])


def _task_of(shop: "Workspace", step: Version) -> LineageTask | None:
    """The task that a version was tuned on; None for one that was made otherwise."""
    if step.parent is None or "editor" in step.manifest.recipe:
        return None  # no need to read its delta
    given = shop.archive.solved(step).notes.get("task")
    if not given:
        return None
    return LineageTask(
        digest=str(given["digest"]),
        name=str(given["name"]),
        instruction=str(given.get("instruction", "")),
        train_rows=int(given.get("train_rows", 0)),
        version=step.name,
        test=tuple(Example.model_validate(row) for row in given.get("test", ())),
    )


def _asked(shop: "Workspace", version: Version, task: LineageTask) -> Outcomes:
    """What a version answers to one task, asked once."""

    def ask() -> Outcomes:
        from perdure.measuring.task_answers import TaskAnswer, answer_task
        from perdure.tuning.pool_settings import request_of

        processor = processor_for(shop, version, task.test)
        progress, stage = labelled(shop, version), f"task {task.name}"

        def answer(model: Any, tokenizer: Any, places: Sequence[int]) -> list[TaskAnswer]:
            examples = [task.test[place] for place in places]
            return answer_task(model, tokenizer, examples, processor=processor, progress=progress, stage=stage)

        found = asked_through(shop, version, [request_of(example) for example in task.test], answer)
        replies = tuple(TaskReply(text=reply.text, exact=reply.exact, rouge=reply.rouge) for reply in found)
        return Outcomes(tasks={task.digest: replies})

    return once(shop, [version.id, "task", task.digest, task.asked], ask)


def _reported(shop: "Workspace", step: Version, tasks: Sequence[LineageTask]) -> dict[str, Cell]:
    """The answers to these tasks that stand in a version's report."""
    report = shop.archive.report(step) or {}
    items = (report.get("tasks") or {}).get("items", {})
    found = {}
    for task in tasks:
        try:
            cell = Cell.model_validate(items.get(task.digest))
        except ValidationError:
            continue
        if len(cell.exact) == len(cell.rouge) == len(task.test):
            found[task.digest] = cell
    return found
