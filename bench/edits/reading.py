"""Logits at chosen places of many texts, each beginning read once: most questions about a fact begin alike.

A text that begins another one needs no pass of its own, and the last token of an answer is only predicted,
never read. Shape suffixes: N questions, A chosen places, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.models.head import logits_at
from perdure.models.tokens import batches, encode, encode_pair

Asked = tuple[Sequence[int], Sequence[int]]
"""The ids of a text and the columns whose next token is asked for."""

_TOKENS = 1024


def read_logits(model: Any, asked: Sequence[Asked], *, tokens: int = _TOKENS) -> Iterator[tuple[int, Tensor]]:
    """The place in `asked` and the logits [A, V] of each text, in no fixed order.

    Args:
        model: A causal language model.
        asked: Texts and places in them.
        tokens: Padded tokens in one pass; no result depends on it.
    """
    guests = _guests([tuple(ids) for ids, _ in asked])
    hosts = list(guests)
    for batch in batches([asked[host][0] for host in hosts], tokens=tokens, device=model.device):
        here = [(line, guest) for line, row in enumerate(batch.rows) for guest in guests[hosts[row]]]
        places = [(line, column) for line, guest in here for column in asked[guest][1]]
        lines_N, columns_N = torch.tensor(places, dtype=torch.long, device=model.device).T
        with torch.no_grad():
            logits_NV = logits_at(model, lines_N, columns_N, use_cache=False, **batch.inputs())
        counts = [len(asked[guest][1]) for _, guest in here]
        yield from zip([guest for _, guest in here], torch.split(logits_NV, counts), strict=True)


def _guests(texts: Sequence[tuple[int, ...]]) -> dict[int, list[int]]:
    """From each text that must be read to the texts that it begins with, itself among them."""
    order = sorted(range(len(texts)), key=lambda index: texts[index])
    guests: dict[int, list[int]] = {}
    host = -1
    for index in reversed(order):  # in sorted order a text comes right before those that begin with it
        if host < 0 or texts[host][: len(texts[index])] != texts[index]:
            host = index
        guests.setdefault(host, []).append(index)
    return guests


def score_and_predict(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], prompts: Sequence[str]
) -> tuple[list[float], Tensor]:
    """The log-probability per token of each (prompt, answer), and what each prompt's next token may be.

    The second is [N, V], log-probabilities, float32.
    """
    encoded = [encode_pair(tokenizer, prompt, answer) for prompt, answer in pairs]
    asked: list[Asked] = [(ids[:-1], range(max(start, 1) - 1, len(ids) - 1)) for ids, start in encoded]
    asked += [(ids, [len(ids) - 1]) for ids in (encode(tokenizer, prompt) for prompt in prompts)]
    scores = [0.0] * len(pairs)
    next_NV = torch.zeros(len(prompts), model.get_output_embeddings().weight.shape[0])
    for index, logits_AV in read_logits(model, asked):
        log_probs_AV = logits_AV.float().log_softmax(1)
        if index >= len(pairs):
            next_NV[index - len(pairs)] = log_probs_AV[0].cpu()
            continue
        ids, start = encoded[index]
        answer_A = torch.tensor(ids[max(start, 1) :], device=log_probs_AV.device)
        scores[index] = float(log_probs_AV.gather(1, answer_A[:, None]).mean())
    return scores, next_NV
