"""Rows that are there to be held on to, not learnt: what the model itself writes, or general text.

A model that writes freely shows what it is used for without anybody's data: a chat model asks itself questions from the
beginning of a user's turn, as in Xu et al., "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs
with Nothing", ICLR 2025; replaying such text instead of old data is Huang et al., "Mitigating Catastrophic Forgetting
in Large Language Models with Self-Synthesized Rehearsal", ACL 2024.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from perdure.editing.statistics import built_in_texts
from perdure.errors import SettingError
from perdure.models.chat import write_chat
from perdure.models.continuing import end_tokens
from perdure.models.tokens import encode, pad
from perdure.progress import Progress, silent
from perdure.requests.tasks import Message
from perdure.tuning.encoding import Row

Source = Literal["own", "passages"]

_TOKENS = 64  # of a passage, or of what is written freely
_QUESTION, _REPLY = 16, 16  # tokens of a chat model's own question, and of its own reply, which is held
_MARK = "\u2402"  # stands for a user's words while a template is cut there
_AT_ONCE = 16  # rows written together


def anchor_rows(
    model: Any, tokenizer: Any, count: int, source: Source, *, seed: int = 0, progress: Progress = silent
) -> list[Row]:
    """So many rows, held by regularizers and not learnt: the replies of a chat, every token of plain text.

    Questions and replies are short: what a tuned model does wrong, it does in its first words, and a row costs what its
    tokens cost.

    Args:
        model: The model, which writes where `source` is "own".
        tokenizer: Its tokenizer.
        count: How many.
        source: The model's own writing, or beginnings of the built-in passages.
        seed: Of the writing.
        progress: Told how many are written.

    Raises:
        SettingError: More passages are asked for than there are.
    """
    if not count:
        return []
    if source == "own":
        return _own(model, tokenizer, count, seed, progress)
    texts = built_in_texts()
    if count > len(texts):
        raise SettingError(f"anchors: there are {len(texts)} built-in passages; given {count}. Or anchor_source=own")
    return [_row(encode(tokenizer, text)[:_TOKENS], 1) for text in texts[:count]]


def _row(ids: Sequence[int], start: int) -> Row:
    return Row(tuple(ids), tuple(place >= start for place in range(len(ids))), start - 1, anchor=True)


def _own(model: Any, tokenizer: Any, count: int, seed: int, progress: Progress) -> list[Row]:
    """What the model writes from nothing: a question and its reply where it chats, else plain text."""
    rows: list[Row] = []
    beginning, chats = _beginning(tokenizer)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        while len(rows) < count:
            progress("writing anchors", len(rows), count)
            many = min(_AT_ONCE, count - len(rows))
            if not chats:
                rows += [_row(ids, len(beginning)) for ids in _written(model, tokenizer, [beginning] * many, _TOKENS)]
                continue
            asked = _written(model, tokenizer, [beginning] * many, _QUESTION)
            questions = [tokenizer.decode(ids[len(beginning) :], skip_special_tokens=True).strip() for ids in asked]
            prompts = [_prompt(tokenizer, question or "Hello") for question in questions]
            replies = _written(model, tokenizer, prompts, _REPLY)
            rows += [_row(ids, len(prompt)) for ids, prompt in zip(replies, prompts, strict=True)]
    progress("writing anchors", count, count)
    return rows


def _beginning(tokenizer: Any) -> tuple[list[int], bool]:
    """The tokens before a user's first word, and whether there is a chat template; else the start or end token."""
    if getattr(tokenizer, "chat_template", None):
        whole = write_chat(tokenizer, [Message(role="user", content=_MARK)], ask=False)
        before, mark, _ = whole.partition(_MARK)
        if mark and before:
            return list(tokenizer(before, add_special_tokens=False)["input_ids"]), True
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return [int(start)], False
    raise SettingError("the tokenizer has no start token to write from; take anchor_source=passages")


def _prompt(tokenizer: Any, question: str) -> list[int]:
    text = write_chat(tokenizer, [Message(role="user", content=question)], ask=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def _written(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    """Each prompt with what the model writes after it, drawn as its distribution says, with its end token."""
    ends = end_tokens(model, tokenizer)
    batch = pad(prompts, left=True, device=model.device)
    found = model.generate(
        batch.ids,
        attention_mask=batch.mask,
        do_sample=True,
        temperature=1.0,
        top_p=0.95,
        top_k=0,
        repetition_penalty=1.0,
        max_new_tokens=limit,
        min_new_tokens=2,
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
    )
    return [
        _to_end([*prompt, *new[batch.ids.shape[1] :].tolist()], len(prompt), ends)
        for prompt, new in zip(prompts, found, strict=True)
    ]


def _to_end(ids: list[int], start: int, ends: frozenset[int]) -> list[int]:
    """The tokens up to the first end token after the prompt."""
    stops = (place + 1 for place in range(start, len(ids)) if ids[place] in ends)
    return ids[: next(stops, len(ids))]
