"""Examples as rows of tokens: what is read, on which tokens the loss is, where the input ends.

Shape suffixes: B rows, T tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from perdure.errors import RequestError
from perdure.models.tokens import encode_pair
from perdure.requests.tasks import Example, Message

IGNORED = -100
"""The label of a token that no loss is on, as everywhere in transformers."""


@dataclass(frozen=True)
class Row:
    """One example as tokens.

    Attributes:
        ids: The tokens, from the first message to the last one's end.
        learns: Whether the loss is on each token: those that the assistant writes, and the token that ends its turn.
        asked: The place of the last input token: the one that predicts the first token of the last answer.
        anchor: Whether the row is only there for regularizers to hold on to: no task loss is on it.
        extra: Further inputs of the model, such as `pixel_values` [1, ...].
    """

    ids: tuple[int, ...]
    learns: tuple[bool, ...]
    asked: int
    anchor: bool = False
    extra: Mapping[str, Tensor] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not any(self.learns[1:]):
            raise RequestError("a row needs a token to learn after its first; the answer is empty")


def rows_of(tokenizer: Any, examples: Iterable[Example], limit: int) -> list[Row]:
    """The rows of examples, each at most `limit` tokens long.

    Raises:
        RequestError: An example is longer; all of them are named, with their lengths.
    """
    rows, long = [], []
    for number, example in enumerate(examples):
        row = row_of(tokenizer, example)
        rows.append(row)
        if len(row.ids) > limit:
            long.append(f"{example.source or f'example {number}'}: {len(row.ids)} tokens")
    if long:
        shown = "; ".join(long[:10]) + ("; …" if len(long) > 10 else "")
        raise RequestError(f"{len(long)} examples are longer than max_tokens={limit}: {shown}", long)
    return rows


def row_of(tokenizer: Any, example: Example) -> Row:
    """One example as tokens.

    Chat rows are written by the tokenizer's chat template; without one, the texts stand one after the other, a blank
    line between turns. A row of prompt and completion is always written without a template. The loss is on what the
    assistant writes and on the token that ends its turn.

    Raises:
        RequestError: The template does not write a conversation as the continuation of its beginning.
    """
    if example.plain or not getattr(tokenizer, "chat_template", None):
        return _plain_row(tokenizer, example.messages)
    return _chat_row(tokenizer, [message.model_dump(include={"role", "content"}) for message in example.messages])


def prompt_ids(tokenizer: Any, example: Example) -> list[int]:
    """The tokens up to where the last answer is to be written: what a model is asked with."""
    row = row_of(tokenizer, example)
    return list(row.ids[: row.asked + 1])


def _plain_row(tokenizer: Any, messages: Sequence[Message]) -> Row:
    prompt = "\n\n".join(message.content for message in messages[:-1])
    ids, start = encode_pair(tokenizer, prompt, messages[-1].content)
    start = max(start, 1)
    if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(tuple(ids), tuple(place >= start for place in range(len(ids))), start - 1)


def _chat_row(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Row:
    """Tokens of a whole conversation; each assistant's turn is learnt, and the token that ends it."""
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = [
        _span(tokenizer, messages, turn, whole) for turn, said in enumerate(messages) if said["role"] == "assistant"
    ]
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    learns = [
        any(start < right and left < stop for start, stop in spans) and right > left
        for left, right in encoded["offset_mapping"]
    ]
    last = next(place for place, (_, right) in enumerate(encoded["offset_mapping"]) if right > spans[-1][0])
    return Row(tuple(encoded["input_ids"]), tuple(learns), last - 1)


def _span(tokenizer: Any, messages: Sequence[Mapping[str, str]], turn: int, whole: str) -> tuple[int, int]:
    """Where a turn's text starts and stops in the whole: what follows the prompt to write it, less space at its end."""
    before = tokenizer.apply_chat_template(messages[:turn], tokenize=False, add_generation_prompt=True)
    after = tokenizer.apply_chat_template(messages[: turn + 1], tokenize=False)
    if not after.startswith(before) or not whole.startswith(after):
        raise RequestError(
            "the chat template does not write a conversation as the continuation of its beginning, so it cannot be "
            "said which tokens the assistant writes; give rows of prompt and completion"
        )
    return len(before), len(after.rstrip())


@dataclass(frozen=True)
class Collated:
    """Rows as one batch, padded on the left, so that all answers end together.

    Attributes:
        inputs: Keyword arguments of the forward pass, with `logits_to_keep`-many last places asked for.
        labels_BT: The tokens to learn, `IGNORED` elsewhere.
        asked_B: The column of each row's last input token.
        rows_B: Which row of the task each is.
        anchor_B: Whether each is there for regularizers only.
        keep: How many of the last places are asked for logits: from the first that predicts a learnt token on.
    """

    inputs: dict[str, Any]
    labels_BT: Tensor
    asked_B: Tensor
    rows_B: Tensor
    anchor_B: Tensor
    keep: int

    @property
    def mask(self) -> Tensor:
        """Where a token is, [B, T]."""
        mask_BT: Tensor = self.inputs["attention_mask"].bool()
        return mask_BT

    @property
    def numbers(self) -> list[int]:
        """Which row of the task each is."""
        found: list[int] = self.rows_B.tolist()
        return found


def collate(rows: Sequence[Row], numbers: Sequence[int]) -> Collated:
    """The rows as one batch; `numbers` says which row of the task each is."""
    longest = max(len(row.ids) for row in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_BT, labels_BT = torch.zeros_like(ids_BT), torch.full_like(ids_BT, IGNORED)
    for place, row in enumerate(rows):
        at = longest - len(row.ids)
        row_T = torch.tensor(row.ids)
        ids_BT[place, at:], mask_BT[place, at:] = row_T, 1
        learnt_T = torch.tensor(row.learns)
        learnt_T[0] = False  # nothing predicts the first token
        labels_BT[place, at:][learnt_T] = row_T[learnt_T]
    first = int((labels_BT != IGNORED).any(0).nonzero()[0])
    inputs = {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "position_ids": (mask_BT.cumsum(1) - 1).clamp(min=0),
        **_extra(rows),
    }
    asked_B = torch.tensor([longest - len(row.ids) + row.asked for row in rows])
    anchor_B = torch.tensor([row.anchor for row in rows])
    return Collated(inputs, labels_BT, asked_B, torch.tensor(list(numbers)), anchor_B, longest - first + 1)


def _extra(rows: Sequence[Row]) -> dict[str, Tensor]:
    """The further inputs of all rows, one after the other."""
    names = {name for row in rows for name in row.extra}
    return {name: torch.cat([row.extra[name] for row in rows if name in row.extra]) for name in sorted(names)}


def moved(batch: Collated, device: Any) -> Collated:
    """The batch on a device."""
    inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    return replace(
        batch,
        inputs=inputs,
        labels_BT=batch.labels_BT.to(device),
        asked_B=batch.asked_B.to(device),
        anchor_B=batch.anchor_B.to(device),
    )
