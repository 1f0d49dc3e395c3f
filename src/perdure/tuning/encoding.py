"""Examples as rows of tokens: what is read, on which tokens the loss is, where the input ends.

Shape suffixes: B rows, T tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from perdure.errors import RequestError
from perdure.models.chat import write_chat
from perdure.models.tokens import encode_pair
from perdure.progress import Progress, counting, silent
from perdure.requests.tasks import Example, Message
from perdure.tuning.shown import Shown, encode_example, has_pictures, is_per_token, joined, padded_left, told

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
        per_token: Further inputs of the model that say something of each token, such as `token_type_ids`.
        shown: Its pictures, if there are any.
    """

    ids: tuple[int, ...]
    learns: tuple[bool, ...]
    asked: int
    anchor: bool = False
    per_token: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shown: Shown | None = None

    def __post_init__(self) -> None:
        if not any(self.learns[1:]):
            raise RequestError("no token to learn after the first; the answer is empty")

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens up to where the last answer is to be written: what a model is asked with."""
        return self.ids[: self.asked + 1]


def row_limit(max_tokens: int, positions: int | None) -> int:
    """The most tokens of a row: what the settings allow, and no more than the model can read."""
    return max_tokens if positions is None else min(max_tokens, positions)


def rows_of(
    tokenizer: Any,
    examples: Iterable[Example],
    max_tokens: int,
    *,
    positions: int | None = None,
    processor: Any | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """The rows of examples, each at most `max_tokens` tokens long, and no longer than the model can read.

    Args:
        tokenizer: The model's tokenizer.
        examples: What becomes rows.
        max_tokens: The most tokens of a row.
        positions: How many tokens the model can read, where that is known (`perdure.models.tokens.positions_of`).
        processor: The processor of a model that reads pictures; it writes the rows of text, too, so that both match.
        progress: Told how many examples are read, where pictures make it long.

    Raises:
        RequestError: An example is longer; all of them are named, with their lengths. Or a picture cannot be read.
    """
    chosen, rows, long, limit = list(examples), [], [], row_limit(max_tokens, positions)
    add = counting(progress, "reading the pictures", len(chosen)) if any(map(has_pictures, chosen)) else _untold
    for number, example in enumerate(chosen):
        row = row_of(tokenizer, example, processor)
        rows.append(row)
        add(1)
        if len(row.ids) > limit:
            long.append(f"{example.source or f'example {number}'}: {len(row.ids)} tokens")
    if long:
        shown = "; ".join(long[:10]) + ("; …" if len(long) > 10 else "")
        allowed = f"max_tokens={limit}" if limit == max_tokens else f"the {limit} tokens that the model can read"
        raise RequestError(f"{len(long)} examples are longer than {allowed}: {shown}", long)
    return rows


def _untold(_more: int) -> None:
    """Nobody is told."""


def row_of(tokenizer: Any, example: Example, processor: Any | None = None) -> Row:
    """One example as tokens.

    Chat rows are written by the chat template; without one, the texts stand one after the other, a blank line between
    turns. A row of prompt and completion is always written without a template. The loss is on what the assistant
    writes and on the token that ends its turn.

    Raises:
        RequestError: The template does not write a conversation as the continuation of its beginning, or leaves a
            text out; or there are pictures and no processor, or one that cannot be read; or the answer is empty. The
            message names the example.
    """
    try:
        return _row_of(tokenizer, example, processor)
    except RequestError as error:
        if told(example) in str(error):
            raise
        raise RequestError(f"{told(example)}: {error}") from error


def _row_of(tokenizer: Any, example: Example, processor: Any | None) -> Row:
    if processor is not None:
        return _processed(processor, example)
    if has_pictures(example):
        raise RequestError(f"{told(example)} shows a picture, and the model has no processor: it reads text alone")
    if example.plain or not getattr(tokenizer, "chat_template", None):
        return _plain_row(tokenizer, example.messages)
    return _chat_row(tokenizer, example.messages)


def _processed(processor: Any, example: Example) -> Row:
    """A row as the model's processor writes it; its pictures' pixels are left to when it is read."""
    encoded = encode_example(processor, example)
    ids = tuple(encoded.inputs["input_ids"][0].tolist())
    more = [name for name in encoded.inputs if is_per_token(name, encoded.inputs)]
    per_token = {
        name: tuple(encoded.inputs[name][0].tolist()) for name in more if name not in {"input_ids", "attention_mask"}
    }
    start = max(encoded.answer_start, 1)
    shown = Shown(processor, example) if has_pictures(example) else None
    return Row(ids, encoded.learns, start - 1, per_token=per_token, shown=shown)


def _plain_row(tokenizer: Any, messages: Sequence[Message]) -> Row:
    prompt = "\n\n".join(message.content for message in messages[:-1])
    ids, start = encode_pair(tokenizer, prompt, messages[-1].content)
    start = max(start, 1)
    if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(tuple(ids), tuple(place >= start for place in range(len(ids))), start - 1)


def _chat_row(tokenizer: Any, messages: Sequence[Message]) -> Row:
    """Tokens of a whole conversation; each assistant's turn is learnt, and the token that ends it."""
    whole = write_chat(tokenizer, messages, ask=False)
    spans = [_span(tokenizer, messages, turn, whole) for turn, said in enumerate(messages) if said.role == "assistant"]
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    learns = [
        any(start < right and left < stop for start, stop in spans) and right > left
        for left, right in encoded["offset_mapping"]
    ]
    last = next(place for place, (_, right) in enumerate(encoded["offset_mapping"]) if right > spans[-1][0])
    return Row(tuple(encoded["input_ids"]), tuple(learns), last - 1)


def _span(tokenizer: Any, messages: Sequence[Message], turn: int, whole: str) -> tuple[int, int]:
    """Where a turn's text starts and stops in the whole: what follows the prompt to write it, less space at its end."""
    before = write_chat(tokenizer, messages[:turn], ask=True)
    after = write_chat(tokenizer, messages[: turn + 1], ask=False)
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

    def mask_of(self, _size: int) -> Tensor:
        """Where a token is, [B, T]: the same in every layer."""
        return self.mask

    @property
    def has_pictures(self) -> bool:
        """Whether something is read besides tokens and what is said of each."""
        return not all(is_per_token(name, self.inputs) for name in self.inputs)

    @property
    def numbers(self) -> list[int]:
        """Which row of the task each is."""
        found: list[int] = self.rows_B.tolist()
        return found


def collate(rows: Sequence[Row], numbers: Sequence[int]) -> Collated:
    """The rows as one batch; `numbers` says which row of the task each is."""
    longest = max(len(row.ids) for row in rows)
    inputs = inputs_of(rows)
    labels_BT = torch.full_like(inputs["input_ids"], IGNORED)
    for place, row in enumerate(rows):
        learnt_T = torch.tensor(row.learns)
        learnt_T[0] = False  # nothing predicts the first token
        labels_BT[place, longest - len(row.ids) :][learnt_T] = torch.tensor(row.ids)[learnt_T]
    first = int((labels_BT != IGNORED).any(0).nonzero()[0])
    asked_B = torch.tensor([longest - len(row.ids) + row.asked for row in rows])
    anchor_B = torch.tensor([row.anchor for row in rows])
    return Collated(inputs, labels_BT, asked_B, torch.tensor(list(numbers)), anchor_B, longest - first + 1)


def inputs_of(rows: Sequence[Row], *, asked: bool = False) -> dict[str, Tensor]:
    """What a model reads of the rows, padded on the left.

    Args:
        rows: The rows.
        asked: Only up to each row's last input token, where its answer is to be written.
    """
    sizes = [row.asked + 1 if asked else len(row.ids) for row in rows]
    per_token = [
        {"input_ids": row.ids[:size], "attention_mask": (1,) * size}
        | {name: values[:size] for name, values in row.per_token.items()}
        for row, size in zip(rows, sizes, strict=True)
    ]
    found = padded_left(per_token, max(sizes))
    places = {"position_ids": (found["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    return {**found, **places, **joined([row.shown.inputs(row.ids) for row in rows if row.shown is not None])}


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
