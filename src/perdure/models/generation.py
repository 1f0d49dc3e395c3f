"""Free generation: greedy continuations of many prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from perdure.errors import RequestError
from perdure.models.tokens import batches, encode


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 16,
    tokens: int = 2048,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt, greedily, until its own end token or the limit.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompts: Texts to go on from.
        max_new_tokens: At most this many tokens each.
        tokens: Padded prompt tokens per batch.
        on_done: Told how many prompts each batch finished.

    Raises:
        RequestError: A prompt holds no token, or is too long for the model.
    """
    rows = [encode(tokenizer, prompt) for prompt in prompts]
    answers = [""] * len(rows)
    if not all(rows):
        raise RequestError("a prompt without any token cannot be continued; give some text")
    _check_lengths(model, rows, max_new_tokens)
    for batch in batches(rows, left=True, tokens=tokens, device=model.device):
        with torch.no_grad(), _greedy(model, max_new_tokens):
            written = model.generate(input_ids=batch.ids, attention_mask=batch.mask)
        new = written[:, batch.ids.shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for index, text in zip(batch.rows, texts, strict=True):
            answers[index] = text
        if on_done:
            on_done(len(batch.rows))
    return answers


@contextmanager
def _greedy(model: Any, max_new_tokens: int) -> Iterator[None]:
    """While open, the model decodes greedily, whatever sampling or penalties its own settings name.

    Settings given to `generate` would be filled up from the model's own, so those are set aside.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id
    first = ends[0] if isinstance(ends, list) else ends
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=ends,
        pad_token_id=0 if first is None else first,
    )
    try:
        yield
    finally:
        model.generation_config = own


def _check_lengths(model: Any, rows: Sequence[Sequence[int]], more: int) -> None:
    """Refuse prompts that leave no room for an answer.

    Raises:
        RequestError: The longest prompt and its answer exceed the model's positions.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, rows), default=0)
    if limit is not None and longest + more > limit:
        raise RequestError(f"a prompt of {longest} tokens and {more} new ones exceed the model's {limit} positions")


def chat_prompt(tokenizer: Any, instruction: str) -> str:
    """The instruction in the model's chat template, ready for the answer; as it is where there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return instruction
    messages = [{"role": "user", "content": instruction}]
    prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return prompt
