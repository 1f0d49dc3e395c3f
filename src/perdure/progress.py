"""How far long work is: told to whoever watches."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told the stage in words, how much of it is done, and how much there is."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def counting(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """A callable that is told how many more items are done, and passes on the sum."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    progress(stage, 0, total)
    return add
