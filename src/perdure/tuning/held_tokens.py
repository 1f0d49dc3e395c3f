"""Which tokens of each row features are held at: all that say something, or some of them, drawn once.

Shape suffixes: B rows, T tokens with padding, N held tokens.
"""

import random

import torch
from torch import Tensor

from perdure.tuning.forward import Batch
from perdure.tuning.regularizer import Run


class HeldTokens:
    """The tokens of each row but padding and a start token that every row shares; at most so many of them.

    Which ones are drawn depends on the seed, the row and its length alone: they are the same in every epoch, whatever
    stands beside the row in its batch.
    """

    def __init__(self, run: Run, limit: int | None, seed: int) -> None:
        self._run, self._limit, self._seed = run, limit, seed
        self._first = run.first
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def of(self, number: int, size: int) -> Tensor:
        """The held tokens of a row, counted from its own first one, in a layer that shows `size` with padding."""
        count = self._run.tokens(number, size)
        first = min(self._first, count)
        if self._limit is None or count - first <= self._limit:
            return torch.arange(first, count)
        if (number, count) not in self._drawn:
            drawn = random.Random(f"held tokens {self._seed} {number} {count}")
            self._drawn[number, count] = torch.tensor(sorted(drawn.sample(range(first, count), self._limit)))
        return self._drawn[number, count]

    def places(self, batch: Batch, size: int) -> tuple[Tensor, Tensor]:
        """The rows [N] and columns [N] of the held tokens in a layer that shows `size`, row after row."""
        mask_BT = batch.mask_of(size)
        starts_B = mask_BT.int().argmax(1).tolist()
        held = [self.of(number, size) for number in batch.numbers]
        rows_N = torch.repeat_interleave(torch.tensor([len(each) for each in held]))
        columns_N = torch.cat([each + start for each, start in zip(held, starts_B, strict=True)])
        return rows_N.to(mask_BT.device), columns_N.to(mask_BT.device)
