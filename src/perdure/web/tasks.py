"""The tasks of a tuned lineage: in plain words and as rows of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.measuring.continual import ContinualFigures, FeatureDrift, TaskCase, TaskMeasure, TaskMeasures
from perdure.measuring.shares import Comparison, Estimate
from perdure.web import figures
from perdure.web.cases import BAD, GOOD, NEUTRAL, Outcome
from perdure.web.visible import one_line, squeeze, visible
from perdure.web.words import N_, _, counted, in_turn, listed, quoted

NAME_LIMIT = 40
TASK_LIMIT = 40
"""More tasks than a person reads; the report's data holds all of them."""
_NEW = {
    (False, True): Outcome(GOOD, N_("Learnt")),
    (True, True): Outcome(GOOD, N_("Right before and after")),
    (False, False): Outcome(BAD, N_("Not learnt")),
    (True, False): Outcome(BAD, N_("Right before, wrong now")),
}
_OLD = {
    (False, True): Outcome(GOOD, N_("Wrong before, right now")),
    (True, True): Outcome(GOOD, N_("Still right")),
    (False, False): Outcome(NEUTRAL, N_("Wrong before and after")),
    (True, False): Outcome(BAD, N_("Right before, wrong now")),
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
        names = listed(quoted(one_line(name)) for name in found.unasked)
        parts.append(_("Of {tasks} nothing can be said: no test questions were kept.").format(tasks=names))
    return in_turn(*parts)


def _learnt(found: TaskMeasures) -> str:
    if found.newest is None:
        return ""
    exact = found.newest.exact
    before = figures.percent(exact.before.value, exact.before.n)
    return _(
        "Of the questions of the new task {task}, the model answers {after} exactly right; before, it was {before}."
    ).format(task=quoted(one_line(found.newest.name)), after=figures.share(exact.after), before=before)


def _forgotten(found: TaskMeasures) -> str:
    if found.exact is None or found.exact.forgetting is None:
        return ""
    lost, count = found.exact.forgetting, len(found.earlier)
    if not lost.high > 0:
        return counted(
            "Of the task learnt earlier, nothing was forgotten ({n}).",
            "Of the {count} tasks learnt earlier, nothing was forgotten ({n}).",
            count,
            n=figures.sample(lost.n),
        )
    return counted(
        "Of the task learnt earlier, {lost} were forgotten since.",
        "Of the {count} tasks learnt earlier, {lost} were forgotten on average since.",
        count,
        lost=_points(lost),
    )


def _points(given: Estimate) -> str:
    """A loss in points with its interval and n, such as "3.5 points (1.2–6.0; n = 400)"."""
    value, low, high = (figures.decimal(100 * part, 1) for part in (given.value, given.low, given.high))
    said = _("{value} points").format(value=value)
    interval = f"{low}{figures.RANGE}{high}"
    return _("{value} ({interval}; {n})").format(value=said, interval=interval, n=figures.sample(given.n))


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
    low, high = figures.decimal(100 * given.low, 1), figures.percentage(given.high, 1)
    return f"{figures.percentage(given.value, 1)} ({low}{figures.RANGE}{high})"


def signed(given: Estimate, *, plus: bool = False) -> str:
    """A figure in points with its interval, such as "−2.5 (−4.0 to −1.1)"."""
    value, interval = _signed(given, plus=plus)
    return f"{value} ({interval})"


def _signed(given: Estimate, *, plus: bool) -> tuple[str, str]:
    value, low, high = (figures.decimal(100 * part, 1, plus=plus) for part in (given.value, given.low, given.high))
    return value, figures.between(low, high)


def figure_rows(found: TaskMeasures) -> list[tuple[str, str, str, str]]:
    """Name, meaning, over right answers, over Rouge-L, for each of the four figures."""
    if found.exact is None or found.rouge is None:
        return []
    told = (
        (N_("Average"), N_("all tasks, as they are answered now"), "average"),
        (N_("New"), N_("each task, just after it was learnt"), "new"),
        (N_("Forgetting"), N_("earlier tasks: the best since each was learnt, less now"), "forgetting"),
        (N_("Backward transfer"), N_("earlier tasks: now, less just after each was learnt"), "backward_transfer"),
    )
    rows = []
    for name, meaning, field in told:
        pair = [getattr(side, field) for side in (found.exact, found.rouge)]
        if None not in pair:
            rouge = _rouge(pair[1], plus=field == "backward_transfer")
            rows.append((_(name), _(meaning), _told(field, pair[0]), rouge))
    return rows


def _told(field: str, given: Estimate) -> str:
    if field in ("average", "new"):
        return mean(given)
    value, interval = _signed(given, plus=field == "backward_transfer")
    return _("{value} ({interval}) points").format(value=value, interval=interval)


def _rouge(given: Estimate, *, plus: bool) -> str:
    """A figure in units of Rouge-L with its interval, such as "0.863 (0.830 to 0.893)"."""
    value, low, high = (figures.decimal(part, 3, plus=plus) for part in (given.value, given.low, given.high))
    return f"{value} ({figures.between(low, high)})"


def general(found: TaskMeasures) -> list[Comparison]:
    """General tasks without and with examples, where they were asked."""
    return [comparison for comparison in (found.zero_shot, found.in_context) if comparison is not None]


def drift_words(drift: FeatureDrift) -> str:
    """How far the hidden states moved, in words."""
    if not any(drift.by_block):
        said = _("On ordinary text the model's inner states are those of the original ({n} passages).")
        return said.format(n=figures.sample(drift.mean.n))
    most = max(range(len(drift.blocks)), key=lambda place: drift.by_block[place])
    return _(
        "On ordinary text the model's inner states are {distance} from the original's ({interval}; {n} passages), "
        "where 0 is no change and 2 means that they have nothing in common; most of all in layer {layer}: {most}."
    ).format(
        distance=figures.number(drift.mean.value),
        interval=figures.between(figures.number(drift.mean.low), figures.number(drift.mean.high)),
        n=figures.sample(drift.mean.n),
        layer=drift.blocks[most],
        most=figures.number(drift.by_block[most]),
    )


def shift_words(shifts: Mapping[str, float]) -> str:
    """How far the vectors of skills moved, in words; empty where none were compared."""
    if not shifts:
        return ""
    far = max(shifts, key=lambda name: shifts[name])
    middle = sum(shifts.values()) / len(shifts)
    return counted(
        "The vectors of {count} skill moved by {mean} on average (1 − cosine), that of {skill} most: {most}.",
        "The vectors of {count} skills moved by {mean} on average (1 − cosine), that of {skill} most: {most}.",
        len(shifts),
        mean=figures.number(middle),
        skill=one_line(far),
        most=figures.number(shifts[far]),
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
