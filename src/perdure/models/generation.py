"""Free generation: greedy continuations of many prompts."""

from collections.abc import Callable, Sequence
from typing import Any

from perdure.errors import ModelError, RequestError
from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode, positions_of


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
    if not all(rows):
        raise RequestError("a prompt without any token cannot be continued; give some text")
    _check_lengths(model, rows, max_new_tokens)
    return continue_rows(model, tokenizer, rows, _never, max_new_tokens=max_new_tokens, tokens=tokens, on_done=on_done)


def _never(_row: int, _text: str) -> bool:
    """Only the model's end token or the limit stops a text."""
    return False


def _check_lengths(model: Any, rows: Sequence[Sequence[int]], more: int) -> None:
    """Refuse prompts that leave no room for an answer.

    Raises:
        RequestError: The longest prompt and its answer exceed the model's positions.
    """
    limit = positions_of(model)
    longest = max(map(len, rows), default=0)
    if limit is not None and longest + more > limit:
        raise RequestError(f"a prompt of {longest} tokens and {more} new ones exceed the model's {limit} positions")


def chat_prompt(tokenizer: Any, instruction: str) -> str:
    """The instruction in the model's chat template, ready for the answer; as it is where there is none.

    Templates of models that read images may expect a message as a list of parts and write nothing of a plain text.

    Raises:
        ModelError: The template leaves the instruction out.
    """
    if not getattr(tokenizer, "chat_template", None):
        return instruction
    for content in (instruction, [{"type": "text", "text": instruction}]):
        messages = [{"role": "user", "content": content}]
        prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if instruction.strip() in prompt:
            return prompt
    raise ModelError(f"the chat template does not write what the user says; it gives {prompt!r}")
