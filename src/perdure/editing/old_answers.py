"""What a model says today about facts that are to change."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode
from perdure.requests import Fact

_MAX_NEW_TOKENS = 16
_CLAUSE_END = re.compile(r"[.!?](?=\s|$)|[,;:()\[\]\n–—。！？，；：（）]|\s-\s")
_FRINGE = " \t\r\n.,;:!?'\"“”‘’«»()[]*_`。，！？"


def old_answers(
    model: Any, tokenizer: Any, facts: Sequence[Fact], *, on_done: Callable[[int], None] | None = None
) -> list[str]:
    """The old answer of each fact: its `target_true`, or the first clause that the model writes after the prompt.

    Written greedily, at most 16 tokens; empty where the model ends the text at once.

    Args:
        model: The model before the edit.
        tokenizer: Its tokenizer.
        facts: What is to change.
        on_done: Told how many of the missing answers each batch finished.
    """
    missing = [fact.prompt for fact in facts if fact.target_true is None]
    written = iter(
        continue_rows(
            model,
            tokenizer,
            [encode(tokenizer, prompt) for prompt in missing],
            lambda _row, text: _is_over(text),
            max_new_tokens=_MAX_NEW_TOKENS,
            on_done=on_done,
        )
    )
    return [fact.target_true or first_clause(next(written)) for fact in facts]


def first_clause(text: str) -> str:
    """The text up to the first mark that ends a clause or a sentence, or the first end of line."""
    text = text.lstrip(_FRINGE)
    found = _CLAUSE_END.search(text)
    return (text[: found.start()] if found else text).rstrip(_FRINGE)


def _is_over(text: str) -> bool:
    """Whether the first clause stays as it is whatever follows; a full stop at the very end may become 3.5."""
    found = _CLAUSE_END.search(text.lstrip(_FRINGE))
    return found is not None and found.end() < len(text.lstrip(_FRINGE))
