"""The tasks of a tuned lineage in the terminal: before and after, and what was forgotten."""

from typing import TYPE_CHECKING

from perdure.cli.console import percent, points, say, table

if TYPE_CHECKING:
    from perdure.measuring.continual import TaskMeasure, TaskMeasures
    from perdure.measuring.shares import Difference


def say_tasks(tasks: "TaskMeasures") -> None:
    """Print each task before and after, and what it all comes to in words."""
    from perdure.web.tasks import every_figure, summary

    if tasks.tasks:
        columns = ["task", "learnt in", "before", "after", "points", "since learnt", "Rouge-L", "n"]
        table("Tasks (answered exactly, in free generation)", columns, [_row(task) for task in tasks.tasks])
    say(summary(tasks))
    if tasks.exact is not None:
        say(every_figure(tasks.exact))


def _row(task: "TaskMeasure") -> list[str]:
    exact, rouge = task.exact, task.rouge
    return [
        task.name,
        task.version,
        percent(exact.before.value),
        percent(exact.after.value),
        _moved(exact.difference),
        "" if task.since is None else _moved(task.since),
        f"{rouge.before.value:.3f} → {rouge.after.value:.3f}",
        str(exact.after.n),
    ]


def _moved(difference: "Difference") -> str:
    return f"{points(difference.value)} ({points(difference.low)} to {points(difference.high)})"
