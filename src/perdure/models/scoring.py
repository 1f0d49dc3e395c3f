"""Teacher-forced scores of answers after prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.models.head import logits_at
from perdure.models.tokens import batches, encode_pair


@dataclass(frozen=True)
class Scores:
    """How a model scores one answer, given the prompt and the answer's own earlier tokens.

    Attributes:
        log_probs: Log-probability of each answer token.
        hits: Whether each answer token is the most probable one; all of them hit exactly when greedy
            generation writes this answer.
    """

    log_probs: tuple[float, ...]
    hits: tuple[bool, ...]

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole answer."""
        return sum(self.log_probs)

    @property
    def mean_log_prob(self) -> float:
        """Log-probability per token."""
        return self.log_prob / len(self.log_probs)

    @property
    def accuracy(self) -> float:
        """Share of answer tokens that are most probable (teacher-forced accuracy)."""
        return sum(self.hits) / len(self.hits)


def score_targets(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    tokens: int = 2048,
    on_done: Callable[[int], None] | None = None,
) -> list[Scores]:
    """The scores of each (prompt, answer) pair, in order.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        pairs: Prompts and answers; the space between them is added where the language writes one.
        tokens: Padded tokens per batch.
        on_done: Told how many pairs each batch finished.
    """
    encoded = [encode_pair(tokenizer, prompt, answer) for prompt, answer in pairs]
    return score_ids(model, encoded, tokens=tokens, on_done=on_done)


def score_ids(
    model: Any,
    encoded: Sequence[tuple[Sequence[int], int]],
    *,
    tokens: int = 2048,
    on_done: Callable[[int], None] | None = None,
) -> list[Scores]:
    """As `score_targets`, for rows of ids and where each answer starts (at least 1)."""
    scores: list[Scores | None] = [None] * len(encoded)
    for batch in batches([ids for ids, _ in encoded], tokens=tokens, device=model.device):
        places = [(row, at) for row, index in enumerate(batch.rows) for at in _answer(encoded[index])]
        log_probs, hits = _score(model, batch.inputs(), batch.ids, places)
        start = 0
        for index in batch.rows:
            stop = start + len(_answer(encoded[index]))
            scores[index] = Scores(tuple(log_probs[start:stop]), tuple(hits[start:stop]))
            start = stop
        if on_done:
            on_done(len(batch.rows))
    return [score for score in scores if score is not None]


def _answer(encoded: tuple[Sequence[int], int]) -> range:
    ids, start = encoded
    return range(max(start, 1), len(ids))  # the first token of a row has nothing before it to predict it


def _score(
    model: Any, inputs: dict[str, Tensor], ids_BT: Tensor, places: list[tuple[int, int]]
) -> tuple[list[float], list[bool]]:
    """Log-probability and top-1 hit of the token at each (row, column)."""
    device = ids_BT.device
    rows = torch.tensor([row for row, _ in places], dtype=torch.long, device=device)  # none for rows of one token
    columns = torch.tensor([at for _, at in places], dtype=torch.long, device=device)
    with torch.no_grad():
        logits_NV = logits_at(model, rows, columns - 1, use_cache=False, **inputs)
    answer_N = ids_BT[rows, columns]
    chosen_N = logits_NV.gather(1, answer_N[:, None])[:, 0] - logits_NV.logsumexp(1)
    return chosen_N.tolist(), (logits_NV.argmax(1) == answer_N).tolist()
