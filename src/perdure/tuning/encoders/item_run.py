"""A labelled set about to be learnt by an encoder: what regularizers and the Trainer ask of it.

Shape suffixes: B rows, T tokens or places of an image, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from perdure.models.encoders import Encoder
from perdure.tuning.encoders.classifier import POOLED, Classifier
from perdure.tuning.encoders.heads import Head
from perdure.tuning.encoders.prepared import COUNTS, Prepared
from perdure.tuning.encoding import IGNORED
from perdure.tuning.forward import Batch, Seen, Taps
from perdure.tuning.regularizer import Reference, Run, Surroundings
from perdure.tuning.trained import Trained

_OWN = ("labels", "rows", "anchor", COUNTS)


@dataclass(frozen=True)
class ItemBatch:
    """Labelled items that are read together.

    Attributes:
        inputs: Keyword arguments of the forward pass.
        labels_B: Their classes; `IGNORED` for anchors.
        rows_B: Which row of the run each is.
        anchor_B: Whether each is only there to be held.
        mask_BT: Which tokens are a text's own; None for images.
    """

    inputs: dict[str, Tensor]
    labels_B: Tensor
    rows_B: Tensor
    anchor_B: Tensor
    mask_BT: Tensor | None

    @property
    def numbers(self) -> list[int]:
        """Which row of the run each is."""
        found: list[int] = self.rows_B.tolist()
        return found

    def mask_of(self, size: int) -> Tensor:
        """Where a stage that shows `size` tokens or places shows one of the row, [B, size]: all, but for texts."""
        if self.mask_BT is not None and size == self.mask_BT.shape[1]:
            return self.mask_BT
        return torch.ones(len(self.rows_B), size, dtype=torch.bool, device=self.rows_B.device)


@dataclass(frozen=True)
class SeenItems(Seen):
    """What a forward pass of labelled items showed.

    Attributes:
        pooled_BD: What a probe reads.
        network: The network that gave it.
    """

    pooled_BD: Tensor
    network: Classifier

    @property
    def told(self) -> Tensor:
        """The logits [B · K, V] of the K heads of before: of each item those of every head, one after the other."""
        return self.network.told(self.pooled_BD)

    @property
    def told_rows(self) -> Tensor:
        """The row in the batch that each of `told` stands in."""
        return torch.arange(len(self.pooled_BD), device=self.pooled_BD.device).repeat_interleave(self.network.known)


@dataclass(frozen=True)
class ItemRun(Run):
    """One labelled set, and anchors besides.

    Attributes:
        model: The network that is trained.
        items: All items, as the model reads them.
        labels: The class of each; `IGNORED` for anchors, which follow the others.
        digests: The identity of each item's content.
        trained: The encoder's weights under training.
        around: What the tuning stands on; `original` opens an encoder.
        known: Heads of before that are asked beside the network's own.
        adapted: The encoder in its wrapper, where it has adapters.
        held: How much each item counts where it is held; all alike when None.
        at_once: How many items are read at once without gradients.
    """

    model: Classifier
    items: Prepared
    labels: Sequence[int]
    digests: Sequence[str]
    trained: Trained
    around: Surroundings
    known: Sequence[Head] = ()
    adapted: Any | None = None
    held: Sequence[float] | None = None
    at_once: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lengths", self.items.lengths())

    @property
    def base(self) -> Any:
        """The transformers model of the encoder."""
        return self.model.network

    @property
    def anchors(self) -> Sequence[bool]:
        """Of each item, whether it is only there to be held."""
        return [label == IGNORED for label in self.labels]

    @property
    def weights(self) -> Sequence[float] | None:
        """How much each item counts where it is held."""
        return self.held

    def content(self) -> Any:
        """The items and their classes."""
        return [self.model.side, list(self.model.start.classes), list(self.digests), list(self.labels)]

    def tokens(self, number: int, size: int) -> int:
        """How many tokens or places of an item a stage shows: all of a text's own, or the one that a probe reads."""
        lengths: Sequence[int] | None = self._lengths  # type: ignore[attr-defined]
        return size if lengths is None or size == 1 else lengths[number]

    def told(self, _number: int) -> int:
        """One distribution for each head of before."""
        return len(self.known)

    @property
    def asked(self) -> Mapping[str, Any]:
        """The heads of before."""
        return {"heads": [head.digest for head in self.known]}

    @property
    def outcomes(self) -> int:
        """The classes of the largest of these heads."""
        return self.model.outcomes

    def packed(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Items as one flat batch of tensors."""
        labels_B = torch.tensor([self.labels[number] for number in numbers])
        own = {"labels": labels_B, "rows": torch.tensor(list(numbers)), "anchor": labels_B == IGNORED}
        return {**self.items.batch(numbers), **own}

    def unpacked(self, inputs: Mapping[str, Any]) -> ItemBatch:
        """The batch that was packed."""
        read = {name: value for name, value in inputs.items() if name not in _OWN}
        counts_BT = inputs[COUNTS].bool() if COUNTS in inputs else None
        return ItemBatch(read, inputs["labels"], inputs["rows"], inputs["anchor"], counts_BT)

    def batch(self, numbers: Sequence[int]) -> ItemBatch:
        """Items as a batch, where the model is."""
        return self.unpacked({name: value.to(self.model.device) for name, value in self.packed(numbers).items()})

    def batches(self, numbers: Sequence[int], *, graded: bool = False) -> Iterator[list[int]]:
        """The items in parts of like length."""
        size = max(1, self.at_once // 4) if graded else self.at_once
        lengths: Sequence[int] | None = self._lengths  # type: ignore[attr-defined]
        order = list(numbers) if lengths is None else sorted(numbers, key=lambda number: lengths[number])
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def forward(self, model: Any, batch: Batch, taps: Taps | None = None) -> SeenItems:
        """One pass of the network, or of a reference."""
        given, names = cast("ItemBatch", batch), list(taps or {})
        logits_BC, seen = model(given.inputs, names)
        tapped = {name: seen.pooled_BD[:, None] if name == POOLED else seen.stages[name] for name in names}
        rows_B = torch.arange(len(logits_BC), device=logits_BC.device)
        return SeenItems(given, logits_BC, given.labels_B, rows_B, tapped, seen.pooled_BD, model)

    def reference(self, which: Reference) -> AbstractContextManager[Any]:
        """The reference while open, with the same heads."""
        if which == "original" and self.around.original is not None:
            return self._original(self.around.original())
        return nullcontext(self.model)

    @contextmanager
    def _original(self, opened: AbstractContextManager[Encoder]) -> Iterator[Classifier]:
        with opened as encoder:
            yield Classifier(encoder, self.model.side, self.model.start, self.known).eval()

    def untouched(self) -> AbstractContextManager[Any] | None:
        """The network without its adapters."""
        return None if self.adapted is None else self.adapted.disable_adapter()
