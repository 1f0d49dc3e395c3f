"""Texts as tokens: joining, positions of a subject, padded batches."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.errors import ModelError, RequestError


def join(prompt: str, answer: str) -> str:
    """The prompt with its answer after it: one space between, none between characters written without spaces."""
    if not prompt or not answer or prompt[-1].isspace() or answer[0].isspace():
        return prompt + answer
    return prompt + answer if is_unspaced(prompt[-1]) and is_unspaced(answer[0]) else f"{prompt} {answer}"


def is_unspaced(char: str) -> bool:
    """Whether words in this character are written without spaces: Chinese and Japanese, but not Korean."""
    wide = unicodedata.east_asian_width(char) in "WF"
    return wide and not unicodedata.name(char, "").startswith("HANGUL")


def positions_of(model: Any) -> int | None:
    """How many tokens a model can read at once; None where its settings do not say."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit


def window_of(model: Any) -> int | None:
    """How many columns of a batch back some layers look at most; None where all of them look back to the first.

    A row with padding between its tokens, or with other rows' tokens there, is read rightly only within so many.
    """
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("sliding_window", "window_size")]  # Mistral, Gemma; GPT-Neo
    return min((size for size in sizes if isinstance(size, int)), default=None)


def encode(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text, with whatever start token the tokenizer adds of its own, and without its end token.

    Some tokenizers end every text; what is encoded here is gone on with. A text that has the start token already, as
    chat templates write it, gets no second one.

    Raises:
        RequestError: The text is no valid Unicode.
    """
    try:
        ids = list(tokenizer(text)["input_ids"])
        ids = ids[_second_starts(tokenizer, text, ids) :]
        end = tokenizer.eos_token_id
        ended = bool(ids) and ids[-1] == end and not text.endswith(tokenizer.eos_token)
        return ids[:-1] if ended else ids
    except (TypeError, UnicodeError) as error:  # lone surrogates: bytes that were no UTF-8
        raise RequestError(f"{text!r} cannot be tokenised: {error}") from error


def _second_starts(tokenizer: Any, text: str, ids: Sequence[int]) -> int:
    """1 where the tokenizer puts a start token before the one that the text itself begins with."""
    start = tokenizer.bos_token
    return int(bool(start) and text.startswith(start) and list(ids[:2]) == [tokenizer.bos_token_id] * 2)


def encode_pair(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], int]:
    """The ids of prompt and answer together, and where the answer starts.

    Tokens may straddle the boundary; the answer starts at the first token in which the joint text
    differs from the prompt alone.
    """
    alone, both = encode(tokenizer, prompt), encode(tokenizer, join(prompt, answer))
    start = 0
    while start < min(len(alone), len(both) - 1) and alone[start] == both[start]:
        start += 1
    return both, start


def last_token_of(tokenizer: Any, text: str, end: int) -> int:
    """The index of the token that holds character `end - 1` of `text`: the last token of a subject.

    Raises:
        ModelError: The tokenizer cannot map characters to tokens.
        RequestError: No token covers that character.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    offsets = _offsets(tokenizer, text)
    # A character of several byte tokens gives them all the same offsets: the last one is wanted.
    found = [index for index, (start, stop) in enumerate(offsets) if start < end <= stop]
    if not found:
        raise RequestError(f"no token covers character {end} of {text!r}")
    return found[-1]


def tokens_between(tokenizer: Any, text: str, start: int, end: int) -> range:
    """The tokens that hold characters `start` to `end - 1` of `text`, whole or in part: those of a subject.

    Raises:
        ModelError: The tokenizer cannot map characters to tokens.
        RequestError: No token covers the last of these characters.
    """
    last = last_token_of(tokenizer, text, end)
    offsets = _offsets(tokenizer, text)
    return range(min(index for index, (left, right) in enumerate(offsets) if left < end and right > start), last + 1)


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where the characters of each token of `encode` start and stop."""
    found = tokenizer(text, return_offsets_mapping=True)
    offsets: list[tuple[int, int]] = found["offset_mapping"]
    return offsets[_second_starts(tokenizer, text, found["input_ids"]) :]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded to one length.

    Attributes:
        ids: [B, T], long.
        mask: [B, T], 1 where a token is.
        positions: [B, T], each token's position in its own row.
        rows: The place of each row in the list that was batched.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    rows: tuple[int, ...]

    def inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of a forward pass."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}


def pad(rows: Sequence[Sequence[int]], *, left: bool = False, device: Any = "cpu") -> Batch:
    """All rows as one batch, padded on the right, or on the left."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Batch(ids.to(device), mask.to(device), positions.to(device), tuple(range(len(rows))))


def batches(
    rows: Sequence[Sequence[int]],
    *,
    left: bool = False,
    tokens: int = 2048,
    most: int | None = None,
    device: Any = "cpu",
) -> Iterator[Batch]:
    """The rows in batches of similar length, at most `tokens` padded tokens and `most` rows each (one row at least)."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    start = 0
    while start < len(order):
        stop = start + 1
        limit = len(order) if most is None else min(len(order), start + most)
        while stop < limit and len(rows[order[stop]]) * (stop + 1 - start) <= tokens:
            stop += 1
        chosen = order[start:stop]
        batch = pad([rows[index] for index in chosen], left=left, device=device)
        yield Batch(batch.ids, batch.mask, batch.positions, tuple(chosen))
        start = stop
