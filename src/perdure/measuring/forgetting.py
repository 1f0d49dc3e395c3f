"""Average, New, Forgetting and backward transfer of a matrix of scores: pure functions of numbers.

R[j][i] is the score of task i after row j. A row is a state of the model: most rows learn one task, some none
(an edit in between). `learnt[i]` is the row that learnt task i; task i in row i where it is not given. Scores
before a task was learnt say nothing here and may be None. The unit is that of the scores.
Shape suffixes: J rows, I tasks, S resamples, N items of a task.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perdure.errors import SettingError
from perdure.measuring.continual import ContinualFigures
from perdure.measuring.shares import Estimate

Scores = Sequence[Sequence[float | None]]
Items = Sequence[Sequence[Sequence[float] | None]]
"""The scores of single questions: items[j][i][k] of question k of task i after row j."""

_Array = NDArray[np.float64]
_DRAWS = 2000


def average(scores: Scores, learnt: Sequence[int] | None = None) -> float:
    """Mean over all tasks of R[T, ·], T the last row."""
    return float(_average(*_checked(scores, learnt)))


def new(scores: Scores, learnt: Sequence[int] | None = None) -> float:
    """Mean of R[i, i]: each task just after it was learnt."""
    return float(_new(*_checked(scores, learnt)))


def forgetting(scores: Scores, learnt: Sequence[int] | None = None) -> float | None:
    """Mean over earlier tasks of max_j R[j, i] − R[T, i], over the rows j since task i was learnt, the last included.

    So it is at least 0, and a little above the truth where scores are noisy: a largest score is picked. None without
    earlier tasks. Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, with j up to T.
    """
    found = _forgetting(*_checked(scores, learnt))
    return None if found is None else float(found)


def backward_transfer(scores: Scores, learnt: Sequence[int] | None = None) -> float | None:
    """Mean over earlier tasks of R[T, i] − R[i, i]; below 0 where they got worse. None without earlier tasks.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017.
    """
    found = _backward_transfer(*_checked(scores, learnt))
    return None if found is None else float(found)


def figures_of(
    items: Items, learnt: Sequence[int] | None = None, *, seed: int = 0, draws: int = _DRAWS
) -> ContinualFigures:
    """All four, each with a 95% interval by a paired bootstrap over the items.

    The questions of each task are drawn anew, with replacement; the same draw serves all rows, so what is hard about
    a question falls out. The interval is from the 2.5th to the 97.5th percentile. The tasks themselves are fixed.

    Args:
        items: Of each row and task, the scores of its questions, in one order in all rows.
        learnt: The row that learnt each task.
        seed: Of the draws; equal input and seed give equal figures.
        draws: How often.

    Raises:
        SettingError: A cell is missing, or a task has other numbers of questions in two rows.
    """
    point_JI, rows = _checked([[None if cell is None else _mean(cell) for cell in row] for row in items], learnt)
    drawn_JIS = np.stack([_resampled(column, seed, place, draws) for place, column in enumerate(_columns(items))], 1)
    n = sum(len(cell) for cell in items[-1] if cell is not None)
    average_S, new_S = _average(drawn_JIS, rows), _new(drawn_JIS, rows)
    return ContinualFigures(
        average=_estimate(_average(point_JI, rows), average_S, n),
        new=_estimate(_new(point_JI, rows), new_S, n),
        forgetting=_over_earlier(_forgetting(point_JI, rows), _forgetting(drawn_JIS, rows), items, rows),
        backward_transfer=_over_earlier(
            _backward_transfer(point_JI, rows), _backward_transfer(drawn_JIS, rows), items, rows
        ),
    )


def _average(scores_JI: _Array, _rows: Sequence[int]) -> _Array:
    return np.asarray(scores_JI[-1].mean(0))


def _new(scores_JI: _Array, rows: Sequence[int]) -> _Array:
    return np.asarray(np.mean([scores_JI[row, task] for task, row in enumerate(rows)], axis=0))


def _forgetting(scores_JI: _Array, rows: Sequence[int]) -> _Array | None:
    lost = [scores_JI[rows[task] :, task].max(0) - scores_JI[-1, task] for task in _earlier(scores_JI, rows)]
    return np.mean(lost, axis=0) if lost else None


def _backward_transfer(scores_JI: _Array, rows: Sequence[int]) -> _Array | None:
    moved = [scores_JI[-1, task] - scores_JI[rows[task], task] for task in _earlier(scores_JI, rows)]
    return np.mean(moved, axis=0) if moved else None


def _earlier(scores_JI: _Array, rows: Sequence[int]) -> list[int]:
    """The tasks that were learnt before the last row."""
    return [task for task, row in enumerate(rows) if row < len(scores_JI) - 1]


def _checked(scores: Scores, learnt: Sequence[int] | None) -> tuple[_Array, list[int]]:
    """The scores as an array, NaN where there is none, and the row that learnt each task."""
    tasks = len(scores[0]) if scores else 0
    rows = list(range(tasks)) if learnt is None else list(learnt)
    if not tasks or len(rows) != tasks or any(len(row) != tasks for row in scores):
        raise SettingError(f"R needs a row and a task at least, and as many columns in each row; given {scores!r:.80}")
    if any(not 0 <= row < len(scores) for row in rows):
        raise SettingError(f"R has {len(scores)} rows; tasks cannot have been learnt in rows {rows}")
    for task, row in enumerate(rows):
        if missing := [place for place in range(row, len(scores)) if scores[place][task] is None]:
            raise SettingError(f"R[{missing[0]}][{task}] is missing; a task is asked in every row since it was learnt")
    return np.array([[np.nan if cell is None else cell for cell in row] for row in scores], np.float64), rows


def _columns(items: Items) -> list[list[Sequence[float] | None]]:
    """The rows of each task, all with the same number of questions."""
    columns = [list(column) for column in zip(*items, strict=True)]
    for task, column in enumerate(columns):
        sizes = {len(cell) for cell in column if cell is not None}
        if len(sizes) != 1 or 0 in sizes:
            raise SettingError(f"task {task} must have the same questions in all rows, one at least; given {sizes}")
    return columns


def _resampled(column: Sequence[Sequence[float] | None], seed: int, place: int, draws: int) -> _Array:
    """The means [J, S] of one task over the same draws of its questions; NaN where a row was not asked."""
    n = max(len(cell) for cell in column if cell is not None)
    drawn = np.random.default_rng([seed, place]).multinomial(n, np.full(n, 1 / n), size=draws)
    return np.stack(
        [np.full(draws, np.nan) if cell is None else drawn @ np.asarray(cell, np.float64) / n for cell in column]
    )


def _over_earlier(value: _Array | None, drawn_S: _Array | None, items: Items, rows: Sequence[int]) -> Estimate | None:
    if value is None or drawn_S is None:
        return None
    n = sum(len(cell) for cell, row in zip(items[-1], rows, strict=True) if cell is not None and row < len(items) - 1)
    return _estimate(value, drawn_S, n)


def _estimate(value: _Array, drawn_S: _Array, n: int) -> Estimate:
    low, high = np.quantile(drawn_S, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high), n=n)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
