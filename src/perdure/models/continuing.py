"""Continuations that stop early: a row that has said enough leaves the batch.

Unless told to choose otherwise, each next token is the most probable one, with no penalties from the model's
generation settings, so what is written here agrees with teacher-forced hits.
Shape suffixes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.models.adapters import bare
from perdure.models.head import logits_at
from perdure.models.sampling import most_probable
from perdure.models.tokens import Batch, batches, positions_of, window_of

_BEGINNINGS = 8
"""The keys and values of a common beginning are held for every row: of at most so many times a batch's tokens."""

Choose = Callable[[Tensor], Tensor]
"""Logits [B, V] of the rows that go on, in their order, to the ids [B] of their next tokens."""


def continue_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    enough: Callable[[int, str], bool],
    *,
    max_new_tokens: int,
    tokens: int = 2048,
    choose: Choose = most_probable,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """What the model writes after each row of tokens, until its end token, the limit, or enough.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        rows: Token ids to go on from.
        enough: Told the row's index and its text so far; whether to stop.
        max_new_tokens: At most this many tokens each; fewer where the model has no more positions.
        tokens: Padded prompt tokens per batch.
        choose: Chooses the next tokens.
        on_done: Told how many rows each batch finished.
    """
    if not rows:
        return []
    limits = _limits(rows, max_new_tokens, positions_of(model))
    writing = _Writing([""] * len(rows), end_tokens(model, tokenizer), enough, limits, choose)
    longest, window = max(map(len, rows)) + max_new_tokens, window_of(model)
    # Short rows have padding after the beginning: it takes up room in a window.
    beginning = _common_beginning(rows) if window is None or longest <= window else []
    rests = [row[len(beginning) :] for row in rows]
    most = max(1, _BEGINNINGS * tokens // max(1, len(beginning)))
    for batch in batches(rests, left=True, tokens=tokens, most=most, device=model.device):
        _continue_batch(model, tokenizer, beginning, batch, writing)
        if on_done:
            on_done(len(batch.rows))
    return writing.texts


def _limits(rows: Sequence[Sequence[int]], most: int, positions: int | None) -> list[int]:
    """How many tokens each row may go on for: no more than the model has positions for; the last one is not read."""
    return [most if positions is None else min(most, max(1, positions - len(row) + 1)) for row in rows]


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a text: the model's own and the tokenizer's."""
    given = model.generation_config.eos_token_id
    own = given if isinstance(given, list) else [given]
    return frozenset(int(end) for end in [*own, tokenizer.eos_token_id] if end is not None)


class _Writing:
    """The texts under way in all batches, and when one is finished."""

    def __init__(
        self,
        texts: list[str],
        ends: frozenset[int],
        enough: Callable[[int, str], bool],
        limits: Sequence[int],
        choose: Choose,
    ) -> None:
        self.texts, self.limits, self.choose = texts, limits, choose
        self._ends, self._enough = ends, enough
        self._ids: dict[int, list[int]] = {}

    def goes_on(self, tokenizer: Any, row: int, token: int) -> bool:
        """Add a token to a row; whether more should follow."""
        if token in self._ends:
            return False
        ids = self._ids.setdefault(row, [])
        ids.append(token)
        self.texts[row] = tokenizer.decode(ids, skip_special_tokens=True)
        return len(ids) < self.limits[row] and not self._enough(row, self.texts[row])


def _common_beginning(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """The tokens that all rows begin with, such as a system prompt, short of any row's last one."""
    first, length = rows[0], 0
    while all(length < len(row) - 1 and row[length] == first[length] for row in rows):
        length += 1
    return first[:length]


@torch.no_grad()
def _continue_batch(model: Any, tokenizer: Any, beginning: Sequence[int], batch: Batch, writing: _Writing) -> None:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if beginning:
        ids = torch.tensor([list(beginning)], device=model.device)
        bare(model).base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch.rows))
    rows = list(batch.rows)
    mask_BT = torch.cat([batch.mask.new_ones(len(rows), len(beginning)), batch.mask], 1)
    last_B1 = batch.positions[:, -1:] + len(beginning)
    step = {
        "input_ids": batch.ids,
        "attention_mask": mask_BT,
        "position_ids": batch.positions + len(beginning),
    }
    while True:
        logits_BV = _last_logits(model, cache, step)
        next_B = writing.choose(logits_BV)
        keep = [index for index, token in enumerate(next_B.tolist()) if writing.goes_on(tokenizer, rows[index], token)]
        if not keep:
            return
        if len(keep) < len(rows):
            kept = torch.tensor(keep, device=next_B.device)
            cache.batch_select_indices(kept)
            rows, next_B, mask_BT, last_B1 = [rows[i] for i in keep], next_B[kept], mask_BT[kept], last_B1[kept]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], 1)
        last_B1 = last_B1 + 1
        step = {"input_ids": next_B[:, None], "attention_mask": mask_BT, "position_ids": last_B1}


def _last_logits(model: Any, cache: Any, step: dict[str, Tensor]) -> Tensor:
    ids_BT = step["input_ids"]
    rows_B = torch.arange(ids_BT.shape[0], device=ids_BT.device)
    last_B = torch.full_like(rows_B, ids_BT.shape[1] - 1)
    return logits_at(model, rows_B, last_B, past_key_values=cache, use_cache=True, **step)
