"""The tasks of a tuned lineage: in plain words and as rows of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.measuring.continual import ContinualFigures, FeatureDrift, TaskCase, TaskMeasure, TaskMeasures
from perdure.measuring.shares import Comparison, Estimate
from perdure.web import figures
from perdure.web.cases import BAD, GOOD, NEUTRAL, Outcome
from perdure.web.visible import one_line, squeeze, visible

NAME_LIMIT = 40
TASK_LIMIT = 40
"""More tasks than a person reads; the report's data holds all of them."""
_NEW = {
    (False, True): Outcome(GOOD, "Learnt"),
    (True, True): Outcome(GOOD, "Right before and after"),
    (False, False): Outcome(BAD, "Not learnt"),
    (True, False): Outcome(BAD, "Right before, wrong now"),
}
_OLD = {
    (False, True): Outcome(GOOD, "Wrong before, right now"),
    (True, True): Outcome(GOOD, "Still right"),
    (False, False): Outcome(NEUTRAL, "Wrong before and after"),
    (True, False): Outcome(BAD, "Right before, wrong now"),
}


@dataclass(frozen=True)
class TaskRow:
    """One task with the name that tells it from the others, and whether this version learnt it."""

    task: TaskMeasure
    name: str
    is_new: bool


@dataclass(frozen=True)
class CaseGroup:
    """The questions of one task, each with its outcome."""

    name: str
    rows: Sequence[tuple[TaskCase, Outcome]]


def names(tasks: Sequence[TaskMeasure]) -> dict[str, str]:
    """From each task's digest to a short name; where several share one, with the version that learnt it."""
    short = {task.digest: squeeze(one_line(visible(task.name)), NAME_LIMIT) for task in tasks}
    often = list(short.values())
    return {
        task.digest: f"{short[task.digest]} ({task.version})" if often.count(short[task.digest]) > 1
        else short[task.digest] for task in tasks
    }  # fmt: skip


def task_rows(found: TaskMeasures) -> list[TaskRow]:
    """Every task, the one that this version learnt first, then the oldest."""
    called = names(found.tasks)
    rows = [TaskRow(task, called[task.digest], task.digest == found.learnt) for task in found.tasks]
    return sorted(rows, key=lambda row: not row.is_new)


def summary(found: TaskMeasures) -> str:
    """What the version learnt and what became of the tasks before it, in plain words."""
    parts = [_learnt(found), _forgotten(found)]
    if found.unasked:
        listed = ", ".join(f"“{one_line(name)}”" for name in found.unasked)
        parts.append(f"Of {listed} nothing can be said: no test questions were kept.")
    return " ".join(part for part in parts if part)


def _learnt(found: TaskMeasures) -> str:
    if found.newest is None:
        return ""
    exact = found.newest.exact
    before = figures.percent(exact.before.value, exact.before.n)
    return (
        f"Of the questions of the new task “{one_line(found.newest.name)}”, the model answers "
        f"{figures.share(exact.after)} exactly right; before, it was {before}."
    )


def _forgotten(found: TaskMeasures) -> str:
    if found.exact is None or found.exact.forgetting is None:
        return ""
    lost, count = found.exact.forgetting, len(found.earlier)
    earlier = "the task learnt earlier" if count == 1 else f"the {figures.whole(count)} tasks learnt earlier"
    if not lost.high > 0:
        return f"Of {earlier}, nothing was forgotten ({figures.sample(lost.n)})."
    mean = "" if count == 1 else " on average"
    return f"Of {earlier}, {_points(lost)} were forgotten{mean} since."


def _points(given: Estimate) -> str:
    """A loss in points with its interval and n, such as "3.5 points (1.2–6.0; n = 400)"."""
    value, low, high = (f"{100 * part:.1f}" for part in (given.value, given.low, given.high))
    return f"{value} points ({low}{figures.RANGE}{high}; {figures.sample(given.n)})"


def every_figure(given: ContinualFigures) -> str:
    """The four figures of continual learning in one line."""
    parts = [f"Average {mean(given.average)}", f"New {mean(given.new)}"]
    if given.forgetting is not None and given.backward_transfer is not None:
        parts += [
            f"Forgetting {signed(given.forgetting)} points",
            f"Backward transfer {signed(given.backward_transfer, plus=True)} points",
        ]
    return "; ".join(parts) + "."


def mean(given: Estimate) -> str:
    """A mean of shares with its interval, such as "73.3% (70.1–76.0%)"."""
    return f"{100 * given.value:.1f}% ({100 * given.low:.1f}{figures.RANGE}{100 * given.high:.1f}%)"


def signed(given: Estimate, *, plus: bool = False) -> str:
    """A figure in points with its interval, such as "−2.5 (−4.0 to −1.1)"."""
    sign = "+" if plus else ""
    value, low, high = (
        f"{round(100 * part, 1) + 0.0:{sign}.1f}".replace("-", figures.MINUS)
        for part in (given.value, given.low, given.high)
    )
    return f"{value} ({low} to {high})"


def figure_rows(found: TaskMeasures) -> list[tuple[str, str, str, str]]:
    """Name, meaning, over right answers, over Rouge-L, for each of the four figures."""
    if found.exact is None or found.rouge is None:
        return []
    told = (
        ("Average", "all tasks, as they are answered now", "average"),
        ("New", "each task, just after it was learnt", "new"),
        ("Forgetting", "earlier tasks: the best since each was learnt, less now", "forgetting"),
        ("Backward transfer", "earlier tasks: now, less just after each was learnt", "backward_transfer"),
    )
    rows = []
    for name, meaning, field in told:
        pair = [getattr(side, field) for side in (found.exact, found.rouge)]
        if None not in pair:
            rows.append((name, meaning, _told(field, pair[0]), _rouge(pair[1], plus=field == "backward_transfer")))
    return rows


def _told(field: str, given: Estimate) -> str:
    if field in ("average", "new"):
        return mean(given)
    return f"{signed(given, plus=field == 'backward_transfer')} points"


def _rouge(given: Estimate, *, plus: bool) -> str:
    """A figure in units of Rouge-L with its interval, such as "0.863 (0.830 to 0.893)"."""
    sign = "+" if plus else ""
    value, low, high = (
        f"{round(part, 3) + 0.0:{sign}.3f}".replace("-", figures.MINUS) for part in (given.value, given.low, given.high)
    )
    return f"{value} ({low} to {high})"


def general(found: TaskMeasures) -> list[Comparison]:
    """General tasks without and with examples, where they were asked."""
    return [comparison for comparison in (found.zero_shot, found.in_context) if comparison is not None]


def drift_words(drift: FeatureDrift) -> str:
    """How far the hidden states moved, in words."""
    if not any(drift.by_block):
        passages = f"{figures.sample(drift.mean.n)} passages"
        return f"On ordinary text the model's inner states are those of the original ({passages})."
    most = max(range(len(drift.blocks)), key=lambda place: drift.by_block[place])
    interval = f"{figures.number(drift.mean.low)} to {figures.number(drift.mean.high)}"
    return (
        f"On ordinary text the model's inner states are {figures.number(drift.mean.value)} from the original's "
        f"({interval}; {figures.sample(drift.mean.n)} passages), where 0 is no change and 2 means that they have "
        f"nothing in common; most of all in layer {drift.blocks[most]}: {figures.number(drift.by_block[most])}."
    )


def shift_words(shifts: Mapping[str, float]) -> str:
    """How far the vectors of skills moved, in words; empty where none were compared."""
    if not shifts:
        return ""
    far = max(shifts, key=lambda name: shifts[name])
    middle = sum(shifts.values()) / len(shifts)
    return (
        f"The vectors of {figures.counted(len(shifts), 'skill')} moved by {figures.number(middle)} on average "
        f"(1 − cosine), that of {one_line(far)} most: {figures.number(shifts[far])}."
    )


def case_groups(found: TaskMeasures) -> list[CaseGroup]:
    """The questions by task, in the order of the table; those whose answers changed first."""
    groups = []
    for row in task_rows(found):
        told = _NEW if row.is_new else _OLD
        rows = [(case, told[case.before_ok, case.after_ok]) for case in found.cases if case.task == row.task.digest]
        if rows:
            groups.append(CaseGroup(row.name, sorted(rows, key=lambda found: _rank(found[0]))))
    return groups


def _rank(case: TaskCase) -> int:
    """What was lost stands first, then what was won."""
    return 2 if case.before_ok == case.after_ok else 0 if case.before_ok else 1
