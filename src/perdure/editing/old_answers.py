"""What a model says today about facts that are to change."""

from collections.abc import Sequence
from typing import Any

from perdure.endings import cut, first_clause, has_ended
from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode
from perdure.progress import Progress, counting, silent
from perdure.requests import Fact

_MAX_NEW_TOKENS = 16


def old_answers(model: Any, tokenizer: Any, facts: Sequence[Fact], progress: Progress = silent) -> list[str]:
    """The old answer of each fact: its `target_true`, or the first clause that the model writes after the prompt.

    Written greedily, at most 16 tokens; empty where the model ends the text at once.

    Args:
        model: The model before the edit.
        tokenizer: Its tokenizer.
        facts: What is to change.
        progress: Told how many of the missing answers are there.
    """
    missing = [fact.prompt for fact in facts if fact.target_true is None]
    written = iter(
        continue_rows(
            model,
            tokenizer,
            [encode(tokenizer, prompt) for prompt in missing],
            lambda _row, text: has_ended(text),
            max_new_tokens=_MAX_NEW_TOKENS,
            on_done=counting(progress, "asking for old answers", len(missing)) if missing else None,
        )
    )
    return [fact.target_true or first_clause(cut(next(written))) for fact in facts]
