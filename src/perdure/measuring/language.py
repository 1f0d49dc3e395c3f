"""How well a model predicts held-out text: the negative log-likelihood of each passage."""

import math
from typing import Any

from perdure.errors import ModelError
from perdure.measuring.outcomes import Passage
from perdure.measuring.suites import Suite
from perdure.models.scoring import score_ids
from perdure.models.tokens import encode
from perdure.progress import Progress, counting, silent

_BATCH_TOKENS = 512  # logits of every token are kept: 100 MB at 50 000 words


def measure_language(model: Any, tokenizer: Any, suite: Suite, progress: Progress = silent) -> tuple[Passage, ...]:
    """The negative log-likelihood of each held-out passage of a suite.

    A passage begins with the start token that the tokenizer adds of its own, if it adds one; without one the
    first token is given and not scored. What is longer than the model's context is cut.

    Raises:
        ModelError: The model gives a passage no finite probability.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    rows = [encode(tokenizer, passage.text)[:limit] for passage in suite.passages]
    done = counting(progress, "held-out text", len(rows))
    scores = score_ids(model, [(ids, 1) for ids in rows], tokens=_BATCH_TOKENS, on_done=done)
    found = []
    for passage, score in zip(suite.passages, scores, strict=True):
        name = f"{passage.topic}: {passage.text[:40]}" if passage.topic else passage.text[:40]
        if not math.isfinite(score.log_prob):
            raise ModelError(f"the model gives no finite probability to {name!r}…; its weights are damaged")
        found.append(Passage(name=name, nll=-score.log_prob, tokens=len(score.log_probs)))
    return tuple(found)
