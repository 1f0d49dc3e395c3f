"""All rows read once without gradients, in batches of like length, with what taps see of each row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from perdure.models.adapters import bare
from perdure.progress import Progress, counting, silent
from perdure.tuning.encoding import Collated, Row, collate, moved
from perdure.tuning.forward import SeenTokens, Taps, forward

T = TypeVar("T")


@torch.no_grad()
def read_all(
    model: Any,
    rows: Sequence[Row],
    taps: Taps,
    *,
    tokens: int = 2048,
    patch: Callable[[Collated], AbstractContextManager[None]] = lambda _batch: nullcontext(),
    progress: Progress = silent,
    stage: str = "reading the reference",
) -> Iterator[SeenTokens]:
    """What each batch of rows shows, every row once; the model in evaluation mode, put back afterwards.

    Args:
        model: The model.
        rows: What is read.
        taps: What is seen besides the logits.
        tokens: Padded tokens per batch.
        patch: Open while a batch is read; what it changes in the model is the caller's affair.
        progress: Told how many rows are read.
        stage: What the work is called there.
    """
    add = counting(progress, stage, len(rows))
    with evaluating(model):
        for numbers in batched(rows, tokens):
            batch = moved(collate([rows[number] for number in numbers], numbers), bare(model).device)
            with patch(batch):
                seen = forward(model, batch, taps)
            yield seen
            add(len(numbers))


def evenly(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, evenly spaced."""
    return list(things[:: max(1, len(things) // count)][:count])


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """While open, the model is in evaluation mode; afterwards every module is in its own again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def row_losses(model: Any, rows: Sequence[Row], *, progress: Progress = silent, stage: str = "losses") -> list[float]:
    """The mean NLL of each row's learnt tokens, in nats, in the order of the rows."""
    found = [0.0] * len(rows)
    for seen in read_all(model, rows, {}, progress=progress, stage=stage):
        sums_B = torch.zeros(len(seen.counts), dtype=torch.float64, device=seen.rows_N.device)
        sums_B.index_add_(0, seen.rows_N, seen.losses().double())
        for number, total, count in zip(seen.batch.numbers, sums_B.tolist(), seen.counts, strict=True):
            found[number] = total / count
    return found


def batched(rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """The numbers of rows of like length, at most `tokens` padded tokens together, one row at least."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    batch: list[int] = []
    for number in order:
        if batch and len(rows[number].ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
