"""Pictures of a row: opened and prepared whenever the row is read, so that no pixels are kept.

Shape suffixes: B rows, T tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.content import digest_file
from perdure.errors import PerdureError, RequestError
from perdure.models.pictures import EncodedMessages, encode_messages, open_pictures
from perdure.requests.tasks import Example


@dataclass(frozen=True)
class Shown:
    """What an example shows besides its text.

    Attributes:
        processor: Of the model.
        example: The example, with the names of its picture files.
    """

    processor: Any
    example: Example

    def inputs(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """What the model reads besides tokens, such as `pixel_values`.

        Args:
            ids: The example's tokens, as they were when its row was made.

        Raises:
            RequestError: A picture is gone, or is another one now.
        """
        encoded = encode_example(self.processor, self.example)
        if encoded.inputs["input_ids"][0].tolist() != list(ids):
            raise RequestError(f"{told(self.example)}: a picture changed since the rows were read")
        return {name: tensor for name, tensor in encoded.inputs.items() if not is_per_token(name, encoded.inputs)}

    @cached_property
    def digests(self) -> list[str]:
        """The sha256 of each picture file: what tells rows of the same tokens apart.

        Raises:
            RequestError: One cannot be read any more.
        """
        try:
            return [digest_file(Path(path)) for message in self.example.messages for path in message.images]
        except OSError as error:
            raise RequestError(f"{told(self.example)}: {error.filename} cannot be read: {error.strerror}") from error


def encode_example(processor: Any, example: Example) -> EncodedMessages:
    """An example as model inputs.

    Raises:
        RequestError: Its pictures cannot be read, or the chat template does not write it; the message says where.
    """
    try:
        return encode_messages(processor, example.messages, images=open_pictures(example.messages), plain=example.plain)
    except PerdureError as error:
        error.args = (f"{told(example)}: {error}", *error.args[1:])
        raise


def has_pictures(example: Example) -> bool:
    """Whether any message shows one."""
    return any(message.images for message in example.messages)


def told(example: Example) -> str:
    """Where an example is from, or how it begins."""
    return example.source or f"the example {example.messages[-2].content[:40]!r}"


def is_per_token(name: str, inputs: Mapping[str, Tensor]) -> bool:
    """Whether an input says something of each token, as `token_type_ids` do; pictures say nothing of tokens."""
    return inputs[name].shape == inputs["input_ids"].shape


def joined(shown: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Further inputs of several rows, one after the other along their first dimension.

    In the others the smaller ones are padded with zeros at their ends, as processors pad pictures of several numbers
    of tiles; the mask that some of them give is padded likewise.
    """
    names = sorted({name for each in shown for name in each})
    return {name: _joined([each[name] for each in shown if name in each]) for name in names}


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    size = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    whole = tensors[0].new_zeros(sum(len(tensor) for tensor in tensors), *size)
    start = 0
    for tensor in tensors:
        whole[(slice(start, start + len(tensor)), *map(slice, tensor.shape[1:]))] = tensor
        start += len(tensor)
    return whole


def padded_left(rows: Sequence[Mapping[str, Sequence[int]]], longest: int) -> dict[str, Tensor]:
    """Per-token inputs [B, T] of several rows, zero in the padding and where a row has none."""
    found = {name: torch.zeros(len(rows), longest, dtype=torch.long) for row in rows for name in row}
    for place, row in enumerate(rows):
        for name, values in row.items():
            found[name][place, longest - len(values) :] = torch.tensor(values)
    return found
