"""What a person or a machine sees: tables, progress bars, JSON, errors."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from perdure.errors import PerdureError
from perdure.progress import silent

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """Print one line of plain text; nothing in it is read as markup."""
    out.print(escape(text), style=style or None)


def note(text: str, *, style: str = "bold") -> None:
    """Print one line beside the output proper, on stderr; nothing in it is read as markup."""
    err.print(escape(text), style=style)


def say_json(value: Any) -> None:
    """Print a value as JSON, for machines."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; cells are plain text."""
    made = Table(title=escape(title), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(escape(column), overflow="fold", justify="left" if index == 0 else "default")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    out.print(made)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Any]:
    """A callable (stage, done, total) that draws one bar per stage on stderr; silent where nobody looks."""
    if quiet or not err.is_terminal:
        yield _note_stages if not quiet else silent
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )
    tasks: dict[str, Any] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(escape(stage), total=total)
        bars.update(tasks[stage], completed=done, total=total)
        if done >= total:  # a stage that comes again starts a new bar
            bars.stop_task(tasks.pop(stage))

    with bars:
        yield advance


_noted: set[str] = set()


def _note_stages(stage: str, done: int, total: int) -> None:
    """Without a terminal, one line when a stage starts and one when it ends."""
    if stage not in _noted:
        _noted.add(stage)
        err.print(f"{escape(stage)} …", style="dim")
    if done >= total:
        _noted.discard(stage)


def fail(error: PerdureError) -> int:
    """Print an error for a person and give its exit code."""
    text = str(error).replace("(skip_bad=True)", "(--skip-bad, where a command has it)")
    err.print(f"[bold red]error:[/] {escape(text)}")
    return error.exit_code


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 fact, 2 facts."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, with a real minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")
