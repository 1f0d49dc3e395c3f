"""The tasks of a lineage as the report shows them: from what each version answered to shares, figures and cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from perdure.content import digest_json
from perdure.measuring.compare import compare_hits
from perdure.measuring.continual import (
    Cell,
    ContinualFigures,
    FeatureDrift,
    MeanComparison,
    Stage,
    TaskCase,
    TaskMeasure,
    TaskMeasures,
    Training,
)
from perdure.measuring.forgetting import figures_of
from perdure.measuring.outcomes import Outcomes, TaskReply
from perdure.measuring.shares import Comparison, Difference
from perdure.measuring.skills import SkillMeasures
from perdure.measuring.statistics import mean_difference, mean_of, paired_difference, share_of
from perdure.requests.tasks import Example

CASE_LIMIT = 200
TEXT_LIMIT = 1000  # characters of a text in a case
_DIGITS = 3  # of Rouge-L
_FREE = "free generation"
IN_CONTEXT = "functions"
"""The parts of the retention suite that show examples; all others are asked without any."""


@dataclass(frozen=True)
class LineageTask:
    """One task that a version of a lineage was tuned on.

    Attributes:
        digest: Of the task's content.
        version: The version that learnt it.
        test: Its test questions.
    """

    digest: str
    name: str
    instruction: str
    train_rows: int
    version: str
    test: tuple[Example, ...]

    @property
    def asked(self) -> str:
        """The sha256 (hex) of the test questions: what answers are kept under."""
        return digest_json([example.model_dump(mode="json", exclude={"source"}) for example in self.test])


@dataclass(frozen=True)
class StageCells:
    """One version of a lineage, the task that it learnt, and its answers by the task's digest."""

    version: str
    learnt: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Beside:
    """What stands in the report beside the answers."""

    drift: FeatureDrift | None = None
    skills: SkillMeasures | None = None
    training: Training | None = None


@dataclass(frozen=True)
class Answered:
    """What the three models answered, to everything that they were asked.

    Attributes:
        base: None where it is the version before.
    """

    before: Outcomes
    after: Outcomes
    base: Outcomes | None = field(default=None)


def build_tasks(
    tasks: Sequence[LineageTask], stages: Sequence[StageCells], answered: Answered, beside: Beside
) -> TaskMeasures | None:
    """The tasks of a lineage; None when it was tuned on none.

    Args:
        tasks: Each once, the oldest first.
        stages: The base, every tuned version, and last the version that is measured.
        answered: What the version before, the version and the base answered.
        beside: What is shown with it.
    """
    if not tasks:
        return None
    asked = [task for task in tasks if task.test]
    rows = stages[1:]
    learnt = [next(at for at, row in enumerate(rows) if row.learnt == task.digest) for task in asked]
    cases = [case for task in asked for case in _cases(task, answered)]
    shown = answered.after.retention and answered.before.retention
    return TaskMeasures(
        learnt=stages[-1].learnt,
        tasks=tuple(_task(task, rows, at, answered) for task, at in zip(asked, learnt, strict=True)),
        stages=tuple(_stage(stage, asked) for stage in stages),
        exact=_figures(asked, rows, learnt, "exact"),
        rouge=_figures(asked, rows, learnt, "rouge"),
        zero_shot=_general(answered, in_context=False) if shown else None,
        in_context=_general(answered, in_context=True) if shown else None,
        drift=beside.drift,
        shifts=_shifts(beside.skills, stages[-1].version),
        training=beside.training,
        cases=tuple(_chosen(cases)),
        questions=len(cases),
        items={task.digest: stages[-1].cells[task.digest] for task in asked},
        unasked=tuple(task.name for task in tasks if not task.test),
    )


def cell_of(replies: Sequence[TaskReply]) -> Cell:
    """The answers to one task, item by item, without their texts."""
    return Cell(
        exact=tuple(int(reply.exact) for reply in replies),
        rouge=tuple(round(reply.rouge, _DIGITS) for reply in replies),
    )


def training_of(notes: Mapping[str, Any]) -> Training | None:
    """What a tuned version's delta notes of its training; None for another version."""
    given = notes.get("training")
    if not isinstance(given, Mapping):
        return None
    log = [{key: float(value) for key, value in entry.items() if _is_number(value)} for entry in given.get("log", ())]
    return Training(
        log=tuple(log),
        averaging=given.get("averaging", {}),
        seconds=float(given.get("seconds", 0.0)),
        rows=int(given.get("rows", 0)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _task(task: LineageTask, rows: Sequence[StageCells], at: int, answered: Answered) -> TaskMeasure:
    replies = [outcomes.tasks[task.digest] for outcomes in (answered.before, answered.after)]
    oldest = answered.base.tasks[task.digest] if answered.base else None
    before, after, base = (_exact(found) for found in (*replies, oldest))
    assert before is not None and after is not None
    then, now = (row.cells[task.digest] for row in (rows[at], rows[-1]))
    return TaskMeasure(
        digest=task.digest,
        name=task.name,
        instruction=task.instruction,
        train_rows=task.train_rows,
        version=task.version,
        exact=compare_hits(f"tasks.{task.name}.exact", task.name, _FREE, (before, after, base)),
        rouge=_rouge(replies[0], replies[1], oldest),
        since=paired_difference(_hits(then), _hits(now)) if at < len(rows) - 1 else None,
    )


def _exact(replies: Sequence[TaskReply] | None) -> list[bool] | None:
    return None if replies is None else [reply.exact for reply in replies]


def _hits(cell: Cell) -> list[bool]:
    return [bool(hit) for hit in cell.exact]


def _rouge(before: Sequence[TaskReply], after: Sequence[TaskReply], base: Sequence[TaskReply] | None) -> MeanComparison:
    return MeanComparison(
        before=mean_of([reply.rouge for reply in before]),
        after=mean_of([reply.rouge for reply in after]),
        difference=_moved(before, after),
        base=mean_of([reply.rouge for reply in base]) if base else None,
        against_base=_moved(base, after) if base else None,
    )


def _moved(before: Sequence[TaskReply], after: Sequence[TaskReply]) -> Difference:
    return mean_difference([new.rouge - old.rouge for old, new in zip(before, after, strict=True)])


def _stage(stage: StageCells, asked: Sequence[LineageTask]) -> Stage:
    known = {task.digest: stage.cells[task.digest] for task in asked if task.digest in stage.cells}
    return Stage(
        version=stage.version,
        learnt=stage.learnt,
        exact={digest: share_of(_hits(cell)) for digest, cell in known.items()},
        rouge={digest: round(sum(cell.rouge) / len(cell.rouge), _DIGITS + 1) for digest, cell in known.items()},
    )


def _figures(
    asked: Sequence[LineageTask], rows: Sequence[StageCells], learnt: Sequence[int], measure: str
) -> ContinualFigures | None:
    if not asked:
        return None
    items = [
        [getattr(row.cells[task.digest], measure) if task.digest in row.cells else None for task in asked]
        for row in rows
    ]
    return figures_of(items, learnt)


def _general(answered: Answered, *, in_context: bool) -> Comparison | None:
    """All parts of the retention suite that show examples (IP), or all that show none (GP), over all their items."""
    models = (answered.before, answered.after, *([answered.base] if answered.base else []))
    parts = [part for part in answered.after.retention if (part.partition(".")[0] == IN_CONTEXT) == in_context]
    if not parts:
        return None
    hits = [[answer.ok for answer in chain.from_iterable(model.retention[p] for p in parts)] for model in models]
    name, label = ("in_context", "general tasks, with examples") if in_context else ("zero_shot", "general tasks")
    return compare_hits(f"tasks.general.{name}", label, _FREE, (hits[0], hits[1], hits[2] if answered.base else None))


def _shifts(skills: SkillMeasures | None, version: str) -> dict[str, float]:
    if skills is None or skills.after != version:
        return {}
    return {skill.name: skill.shift for skill in skills.skills if skill.shift is not None}


def _cases(task: LineageTask, answered: Answered) -> list[TaskCase]:
    rows = zip(task.test, answered.before.tasks[task.digest], answered.after.tasks[task.digest], strict=True)
    return [
        TaskCase(
            task=task.digest,
            question=_cut("\n\n".join(message.content for message in example.prompt)),
            expected=_cut(example.answer),
            before=_cut(before.text),
            after=_cut(after.text),
            before_ok=before.exact,
            after_ok=after.exact,
        )
        for example, before, after in rows
    ]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 1]}…"


def _chosen(cases: Sequence[TaskCase]) -> list[TaskCase]:
    """At most `CASE_LIMIT`: those lost first, then those learnt, the tasks in turn; in their own order."""
    turns: dict[tuple[str, int], int] = {}
    ranked = []
    for place, case in enumerate(cases):
        worth = 0 if case.before_ok and not case.after_ok else 1 if case.after_ok and not case.before_ok else 2
        turn = turns[case.task, worth] = turns.get((case.task, worth), 0) + 1
        ranked.append((worth, turn, place))
    return [cases[place] for place in sorted(place for *_, place in sorted(ranked)[:CASE_LIMIT])]
