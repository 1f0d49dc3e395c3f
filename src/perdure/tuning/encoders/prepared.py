"""Items as the model reads them, prepared once: a step opens no image and writes no token.

Preparing is deterministic, so the tensors of an item are a function of its content and the encoder's rules; those of
images are kept in a file by that content. Shape suffixes: B rows, T tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.content import digest_json
from perdure.models.encoders import Encoder, Side
from perdure.progress import Progress, counting, silent
from perdure.tuning.stores import RowStore, stored

_AT_ONCE = 32
COUNTS = "counts"
"""Beside a text's inputs: which of its tokens are its own, and neither padding nor a start token."""


@dataclass(frozen=True)
class PreparedImages:
    """Pixel values of images, all of one size, float32.

    Attributes:
        pixels: The pixel values [C, H, W] of each.
        name: What the model calls them.
    """

    pixels: RowStore
    name: str

    def lengths(self) -> Sequence[int] | None:
        """Nothing: an image fills every stage."""
        return None

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """What the model reads of these images."""
        return {self.name: self.pixels.rows(numbers)}


@dataclass(frozen=True)
class PreparedTexts:
    """Tokens of texts without padding, and what is said of each.

    Attributes:
        texts: Of each text, by the model's name of an input, a vector.
        padding: By the model's name, what stands in the padding.
    """

    texts: Sequence[dict[str, Tensor]]
    padding: dict[str, int]

    def lengths(self) -> Sequence[int] | None:
        """How many tokens of each text are its own."""
        return [int(text[COUNTS].sum()) for text in self.texts]

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """What the model reads of these texts, padded on the right."""
        chosen = [self.texts[number] for number in numbers]
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [text[name] for text in chosen], batch_first=True, padding_value=self.padding[name]
            )
            for name in chosen[0]
        }


Prepared = PreparedImages | PreparedTexts


def prepare_items(
    encoder: Encoder,
    side: Side,
    items: Sequence[Any],
    digests: Sequence[str],
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Prepared:
    """The items as the model reads them.

    Args:
        encoder: Whose rules they are prepared by.
        side: What the items are.
        items: Images or texts.
        digests: The identity of each one's content.
        cache: Folder in which images are kept; in memory when not given.
        progress: Told how many are prepared.

    Raises:
        ModelError: The encoder does not read such items.
        RequestError: An item is no image or text.
    """
    parts = [range(start, min(start + _AT_ONCE, len(items))) for start in range(0, len(items), _AT_ONCE)]
    if side == "text":
        return _texts(encoder, items, parts, counting(progress, "preparing texts", len(items)))
    first = encoder.prepared(side, [items[0]])
    ((name, pixels),) = first.items()
    rules = encoder.reading[side].digest
    file = digest_json(["prepared", rules, str(pixels.dtype), list(digests)])

    def fill() -> Iterable[tuple[int, Tensor]]:
        add = counting(progress, "preparing images", len(items))
        for part in parts:
            made = encoder.prepared(side, [items[number] for number in part])[name]
            yield from zip(part, made.float().cpu()[:, None], strict=True)
            add(len(part))

    path = None if cache is None else cache / f"{file}.npy"
    return PreparedImages(stored([1] * len(items), pixels.shape[1:], torch.float32, fill, path=path), name)


def _texts(encoder: Encoder, items: Sequence[str], parts: Sequence[range], add: Any) -> PreparedTexts:
    texts: list[dict[str, Tensor]] = []
    padding: dict[str, int] = {COUNTS: 0}
    for part in parts:
        inputs = {name: value.cpu() for name, value in encoder.prepared("text", [items[n] for n in part]).items()}
        counts_BT = encoder.reading["text"].mask(inputs)  # type: ignore[union-attr]
        read_BT = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        for row, length in enumerate(read_BT.sum(1).tolist()):
            whole = {**inputs, COUNTS: counts_BT}
            texts.append({name: value[row, :length].clone() for name, value in whole.items()})
            padding |= {name: int(value[row, length]) for name, value in inputs.items() if length < value.shape[1]}
        add(len(part))
    return PreparedTexts(texts, {**dict.fromkeys(texts[0], 0), **padding})
