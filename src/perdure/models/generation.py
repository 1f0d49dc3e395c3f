"""Free generation: greedy continuations of many prompts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

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
    """
    rows = [encode(tokenizer, prompt) for prompt in prompts]
    answers = [""] * len(rows)
    ends = model.generation_config.eos_token_id
    end_pad = ends[0] if isinstance(ends, list) else ends
    for batch in batches(rows, left=True, tokens=tokens, device=model.device):
        with torch.no_grad():
            written = model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=0 if end_pad is None else end_pad,
            )
        new = written[:, batch.ids.shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for index, text in zip(batch.rows, texts, strict=True):
            answers[index] = text
        if on_done:
            on_done(len(batch.rows))
    return answers


def chat_prompt(tokenizer: Any, instruction: str) -> str:
    """The instruction in the model's chat template, ready for the answer; as it is where there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return instruction
    messages = [{"role": "user", "content": instruction}]
    prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return prompt
