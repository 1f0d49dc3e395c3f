"""Tensors of a task's rows, computed once and read row by row in every epoch, in memory or in a file.

A row has as many entries as it has tokens of some kind; entries of all rows stand one after the other.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_KINDS = {torch.float16: np.float16, torch.float32: np.float32, torch.int32: np.int32}

Fill = Callable[[], Iterable[tuple[int, Tensor]]]
"""Gives each row's number and its entries [count, *shape], in any order, every row once."""


class RowStore:
    """Entries of all rows, read by row.

    Attributes:
        starts: Where each row's entries start; one more at the end.
    """

    def __init__(self, entries: np.ndarray, counts: Sequence[int]) -> None:
        self._entries = entries
        self.starts = [0, *accumulate(counts)]

    def row(self, number: int) -> Tensor:
        """The entries [count, *shape] of one row."""
        return torch.from_numpy(np.array(self._entries[self.starts[number] : self.starts[number + 1]]))

    def rows(self, numbers: Iterable[int]) -> Tensor:
        """The entries of several rows, one after the other."""
        return torch.cat([self.row(number) for number in numbers])


def stored(
    counts: Sequence[int], shape: Sequence[int], dtype: torch.dtype, fill: Fill, *, path: Path | None = None
) -> RowStore:
    """The entries that `fill` gives, or those in `path` where it is there already.

    The file is plain numbers (.npy, never pickled) and is read in place: its size is no memory. It is written under
    a name of this process and renamed when whole, so an interruption leaves no half of it; an error leaves nothing.

    Args:
        counts: How many entries each row has.
        shape: Of one entry.
        dtype: float16, float32 or int32.
        fill: Computes them.
        path: Where they are kept; in memory when not given. Its name must tell them apart: a content hash.
    """
    size = (sum(counts), *shape)
    if path is None:
        return _filled(np.empty(size, _KINDS[dtype]), counts, dtype, fill)
    if path.is_file():
        return RowStore(_opened(path, size), counts)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        entries = np.lib.format.open_memmap(part, mode="w+", dtype=_KINDS[dtype], shape=size)
        _filled(entries, counts, dtype, fill)
        entries.flush()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return RowStore(_opened(path, size), counts)


def _filled(entries: np.ndarray, counts: Sequence[int], dtype: torch.dtype, fill: Fill) -> RowStore:
    store = RowStore(entries, counts)
    for number, given in fill():
        entries[store.starts[number] : store.starts[number + 1]] = given.to("cpu", dtype).numpy()
    return store


def _opened(path: Path, size: tuple[int, ...]) -> np.ndarray:
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.shape != size:
        raise ValueError(f"{path} holds {found.shape}, not {size}; remove it")
    return found
