"""Greedy choices of many texts with one beginning: the beginning is read once.

The rows are laid side by side after their common beginning, in one row of tokens; a mask lets each see the
beginning and itself only, and positions count on from the beginning. Rotary and learned positions make this
exact; a model that does not keep to such a mask is noticed, and given each text whole. So are texts that are longer
than the window of a model whose layers look back only so far, and no pass is wider.
Shape suffixes: T tokens, N chosen positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from perdure.models.head import logits_at
from perdure.models.tokens import batches, window_of

Row = tuple[Sequence[int], int]
"""The ids of a text, and where in it the answer starts (at least 1)."""

_KEEP_TO_MASK: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def greedy_choices(model: Any, rows: Sequence[Row], *, tokens: int = 2048) -> list[list[int]]:
    """For each row, the most probable token at every place of its answer, and the one after it.

    Args:
        model: A causal language model.
        rows: Texts with their answers.
        tokens: At most this many tokens in one pass (one row at least).
    """
    window, longest = window_of(model), max((len(ids) for ids, _ in rows), default=0)
    fit = window is None or longest <= window
    read = _side_by_side if len(rows) > 1 and fit and keeps_to_mask(model) else _each_whole
    tokens = tokens if window is None else min(tokens, window)
    choices: list[list[int]] = [[] for _ in rows]
    for index, logits_NV in read(model, rows, tokens):
        choices[index] = logits_NV.argmax(1).tolist()
    return choices


def keeps_to_mask(model: Any) -> bool:
    """Whether rows laid side by side get the logits that they get alone; seen once, on two short rows."""
    if model not in _KEEP_TO_MASK:
        rows: list[Row] = [([1, 2, 3, 4], 3), ([1, 2, 4, 3, 2], 3)]
        alone = torch.cat([logits for _, logits in sorted(_each_whole(model, rows, 1), key=lambda pair: pair[0])])
        try:
            beside = torch.cat([logits for _, logits in _side_by_side(model, rows, 64)])
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            _KEEP_TO_MASK[model] = False  # an attention kernel that takes no mask of four dimensions
        else:
            tolerance = 1e-3 if model.dtype in {torch.float32, torch.float64} else 3e-2
            _KEEP_TO_MASK[model] = bool((alone - beside).abs().max() <= tolerance * alone.abs().max())
    return _KEEP_TO_MASK[model]


def _each_whole(model: Any, rows: Sequence[Row], tokens: int) -> Iterator[tuple[int, Tensor]]:
    """The index of each row and the logits [N, V] at its answer, from padded batches."""
    for batch in batches([ids for ids, _ in rows], tokens=tokens, device=model.device):
        asked = [range(rows[index][1] - 1, len(rows[index][0])) for index in batch.rows]
        lines = [line for line, columns in enumerate(asked) for _ in columns]
        logits_NV = _logits(model, lines, [column for columns in asked for column in columns], batch.inputs())
        yield from zip(batch.rows, torch.split(logits_NV, [len(columns) for columns in asked]), strict=True)


def _side_by_side(model: Any, rows: Sequence[Row], tokens: int) -> Iterator[tuple[int, Tensor]]:
    """As `_each_whole`, with the common beginning read once per pass."""
    shared = _common_length(rows)
    start = 0
    while start < len(rows):
        stop, total = start, shared
        while stop < len(rows) and (stop == start or total + len(rows[stop][0]) - shared <= tokens):
            total += len(rows[stop][0]) - shared
            stop += 1
        yield from _read_beside(model, rows, shared, range(start, stop))
        start = stop


def _read_beside(model: Any, rows: Sequence[Row], shared: int, chosen: range) -> Iterator[tuple[int, Tensor]]:
    ids, places, owners = list(rows[chosen[0]][0][:shared]), list(range(shared)), [-1] * shared
    columns: list[int] = []
    for index in chosen:
        row, start = rows[index]
        columns += range(len(ids) + start - 1 - shared, len(ids) + len(row) - shared)
        ids += row[shared:]
        places += range(shared, len(row))
        owners += [index] * (len(row) - shared)
    device = model.device
    inputs = {
        "input_ids": torch.tensor([ids], device=device),
        "position_ids": torch.tensor([places], device=device),
        "attention_mask": _mask(torch.tensor(owners, device=device), model.dtype),
    }
    logits_NV = _logits(model, [0] * len(columns), columns, inputs)
    lengths = [len(rows[index][0]) - rows[index][1] + 1 for index in chosen]
    yield from zip(chosen, torch.split(logits_NV, lengths), strict=True)


def _mask(owners_T: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token may look, the lowest number where not, [1, 1, T, T]: back to its own row or the beginning."""
    size = len(owners_T)
    back = torch.ones(size, size, dtype=torch.bool, device=owners_T.device).tril()
    seen = back & ((owners_T[:, None] == owners_T) | (owners_T == -1))
    mask = torch.zeros(size, size, dtype=dtype, device=owners_T.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[None, None]


def _common_length(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, short of the one that the first answer token is read from."""
    limit = min(start for _, start in rows) - 1
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*(ids[:limit] for ids, _ in rows), strict=False))
    return sum(1 for _ in alike)


@torch.no_grad()
def _logits(model: Any, lines: list[int], columns: list[int], inputs: dict[str, Tensor]) -> Tensor:
    lines_N, columns_N = (torch.tensor(places, device=model.device) for places in (lines, columns))
    return logits_at(model, lines_N, columns_N, use_cache=False, **inputs)
