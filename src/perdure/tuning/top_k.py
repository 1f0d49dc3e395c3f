"""A model's distributions over tokens or classes kept small: the most probable ones, and the mass of all others.

Merging the others into one outcome can only lower a divergence, and lowers it little where they have little mass.
Shape suffixes: N tokens, V vocabulary, K kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.tuning.forward import Seen
from perdure.tuning.regularizer import Run
from perdure.tuning.stores import RowStore, stored


@dataclass(frozen=True)
class TopK:
    """Distributions over a vocabulary, of which the K most probable outcomes are told apart.

    Attributes:
        ids_NK: The tokens.
        log_NK: Their log-probabilities, float32.
        rest_N: The log-probability of all other tokens together.
    """

    ids_NK: Tensor
    log_NK: Tensor
    rest_N: Tensor

    def to(self, device: Any) -> "TopK":
        """The same on another device."""
        return TopK(self.ids_NK.to(device), self.log_NK.to(device), self.rest_N.to(device))


def top_k(logits_NV: Tensor, count: int) -> TopK:
    """The `count` most probable tokens of each distribution and the mass of the others."""
    log_NV = torch.log_softmax(logits_NV.float(), -1)
    log_NK, ids_NK = log_NV.topk(min(count, logits_NV.shape[1] - 1))
    return TopK(ids_NK, log_NK, _rest(log_NV, ids_NK))


def _rest(log_NV: Tensor, ids_NK: Tensor) -> Tensor:
    return log_NV.scatter(1, ids_NK, -torch.inf).logsumexp(1)


def seen_through(logits_NV: Tensor, ids_NK: Tensor) -> TopK:
    """A distribution on the outcomes that another one told apart, with gradients."""
    log_NV = torch.log_softmax(logits_NV.float(), -1)
    return TopK(ids_NK, log_NV.gather(1, ids_NK), _rest(log_NV, ids_NK))


def divergence(first: TopK, second: TopK) -> Tensor:
    """KL[first ‖ second] of each pair [N], nats, over the K tokens and all others as one outcome."""
    parts_NK = first.log_NK.exp() * (first.log_NK - second.log_NK)
    rest_N = first.rest_N.exp() * (first.rest_N - second.rest_N)
    return parts_NK.sum(1) + rest_N


class Targets:
    """The distributions of a reference model at every learnt token of every row, computed once."""

    def __init__(self, ids: RowStore, logs: RowStore) -> None:
        self._ids, self._logs = ids, logs

    def of(self, seen: Seen) -> TopK:
        """Those of a batch, in the order of its logits."""
        return self.of_rows(seen.batch.numbers).to(seen.logits_NV.device)

    def of_rows(self, numbers: Sequence[int]) -> TopK:
        """Those of several rows, one after the other, on the CPU."""
        ids_NK, log_NM = self._ids.rows(numbers), self._logs.rows(numbers)
        return TopK(ids_NK.long(), log_NM[:, :-1], log_NM[:, -1])


def targets(
    run: Run,
    model: Any,
    count: int,
    *,
    numbers: Sequence[int] | None = None,
    path: Path | None = None,
    **reading: Any,
) -> Targets:
    """What a reference answers wherever a row has something told, from one pass or from the files of an earlier one.

    Args:
        run: The task.
        model: The reference.
        count: Outcomes told apart.
        numbers: Which rows, in the order in which they are found again; all when not given.
        path: Where it is kept, without an ending; in memory when not given.
        reading: Further arguments of `Run.read`, such as a patch that puts a vector into a layer.
    """
    chosen = list(range(len(run.anchors)) if numbers is None else numbers)
    places = {number: place for place, number in enumerate(chosen)}
    counts = [run.told(number) for number in chosen]
    size = min(count, run.outcomes - 1)
    logs: dict[int, Tensor] = {}

    def fill() -> Iterable[tuple[int, Tensor]]:
        for seen in run.read(model, {}, chosen, **reading):
            kept = top_k(seen.told, count)
            joined_NM = torch.cat([kept.log_NK, kept.rest_N[:, None]], 1)
            sizes = [run.told(number) for number in seen.batch.numbers]
            split = [torch.split(part.cpu(), sizes) for part in (kept.ids_NK.int(), joined_NM)]
            for number, ids_NK, log_NM in zip(seen.batch.numbers, *split, strict=True):
                logs[places[number]] = log_NM
                yield places[number], ids_NK

    files = (None, None) if path is None else (path.with_suffix(".logs.npy"), path.with_suffix(".ids.npy"))
    if files[0] is not None and not files[0].is_file() and files[1] is not None:
        files[1].unlink(missing_ok=True)  # ids without their figures: an interruption between the two
    ids = stored(counts, (size,), torch.int32, fill, path=files[1])
    values = stored(counts, (size + 1,), torch.float32, logs.items, path=files[0])
    return Targets(ids, values)
