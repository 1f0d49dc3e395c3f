"""A task of token rows about to be trained: what regularizers and the Trainer ask of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import Tensor

from perdure.models.adapters import bare
from perdure.tuning.encoding import IGNORED, Collated, Row, collate, moved
from perdure.tuning.forward import Batch, Seen, Taps, forward
from perdure.tuning.reading import batched
from perdure.tuning.regularizer import Reference, Run, Surroundings
from perdure.tuning.trained import Trained

_GRADED = 512  # tokens read at once with gradients: no more memory than a step of the training


@dataclass(frozen=True)
class TokenRun(Run):
    """One task of token rows.

    Attributes:
        model: The causal language model that is trained, in its wrapper where it has adapters.
        tokenizer: Its tokenizer.
        rows: The rows that are trained on.
        pairs: Inputs and outputs of the task without their instruction, for prompts with examples.
        trained: The weights under training.
        around: What the tuning stands on.
        batch_tokens: How many padded tokens are read at once without gradients.
        held_out: Rows that are not learnt and tell how well the task is; their numbers follow those of `rows`.
    """

    model: Any
    tokenizer: Any
    rows: Sequence[Row]
    pairs: Sequence[tuple[str, str]]
    trained: Trained
    around: Surroundings
    batch_tokens: int = 2048
    held_out: Sequence[Row] = ()

    @cached_property
    def _all(self) -> Sequence[Row]:
        """The rows and those held out, by their numbers."""
        return (*self.rows, *self.held_out)

    @property
    def base(self) -> Any:
        """The causal language model."""
        return bare(self.model)

    @property
    def anchors(self) -> Sequence[bool]:
        """Of each row, whether it is only there to be held."""
        return [row.anchor for row in self.rows]

    @property
    def watched(self) -> Sequence[int]:
        """The numbers of the rows held out."""
        return range(len(self.rows), len(self.rows) + len(self.held_out))

    def content(self) -> Any:
        """The rows' tokens, which of them are learnt, and the bytes of their pictures."""
        return [
            [list(row.ids), list(map(int, row.learns)), *(row.shown.digests if row.shown else ())] for row in self.rows
        ]

    @property
    def first(self) -> int:
        """1 where all rows start with the tokenizer's start token."""
        start = getattr(self.tokenizer, "bos_token_id", None)
        return int(start is not None and all(row.ids[0] == start for row in self.rows))

    def tokens(self, number: int, _size: int) -> int:
        """The tokens of a row: every layer shows all."""
        return len(self.rows[number].ids)

    def told(self, number: int) -> int:
        """The tokens of a row that are learnt: each is told from the whole vocabulary."""
        return sum(self.rows[number].learns[1:])

    @property
    def outcomes(self) -> int:
        """The vocabulary."""
        return int(self.base.get_output_embeddings().weight.shape[0])

    def packed(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Rows as one flat batch of tensors."""
        return packed(self._all, numbers)

    def unpacked(self, inputs: Mapping[str, Any]) -> Collated:
        """The batch that was packed."""
        return unpacked(inputs)

    def batch(self, numbers: Sequence[int]) -> Collated:
        """Rows as a batch, where the model is."""
        return moved(collate([self._all[number] for number in numbers], numbers), self.base.device)

    def batches(self, numbers: Sequence[int], *, graded: bool = False) -> Iterator[list[int]]:
        """The rows in parts of like length."""
        for part in batched([self._all[number] for number in numbers], _GRADED if graded else self.batch_tokens):
            yield [numbers[place] for place in part]

    def forward(self, model: Any, batch: Batch, taps: Taps | None = None) -> Seen:
        """One pass of the network, or of a reference."""
        return forward(model, cast("Collated", batch), taps)

    def reference(self, which: Reference) -> AbstractContextManager[Any]:
        """The reference model while open."""
        if which == "original" and self.around.original is not None:
            return self.around.original()
        return nullcontext(self.model)

    def untouched(self) -> AbstractContextManager[Any] | None:
        """The network without its adapters."""
        return self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else None


def packed(rows: Sequence[Row], numbers: Sequence[int]) -> dict[str, Tensor]:
    """Rows as one flat batch of tensors: what data loaders of every kind can move."""
    batch = collate([rows[number] for number in numbers], numbers)
    task_BT = batch.labels_BT.masked_fill(batch.anchor_B[:, None], IGNORED)
    own = {"labels": task_BT, "learnt": batch.labels_BT, "asked": batch.asked_B, "anchor": batch.anchor_B}
    return {**batch.inputs, **own, "rows": batch.rows_B}


def unpacked(inputs: Mapping[str, Any]) -> Collated:
    """The batch that was packed."""
    own = ("labels", "learnt", "asked", "anchor", "rows")
    learnt_BT = inputs["learnt"]
    first = int((learnt_BT != IGNORED).any(0).nonzero()[0])
    return Collated(
        {name: value for name, value in inputs.items() if name not in own},
        learnt_BT,
        inputs["asked"],
        inputs["rows"],
        inputs["anchor"],
        learnt_BT.shape[1] - first + 1,
    )
