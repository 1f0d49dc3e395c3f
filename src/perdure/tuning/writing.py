"""Answers to what is shown: greedy continuations of rows with pictures, by the model's own way of writing.

Shape suffixes: B rows, T tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from perdure.models.adapters import bare
from perdure.models.continuing import end_tokens
from perdure.tuning.encoding import Row, inputs_of
from perdure.tuning.reading import batched


@torch.no_grad()
def continue_shown(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    enough: Callable[[int, str], bool],
    *,
    max_new_tokens: int,
    tokens: int = 2048,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """What the model writes after each row's last input token, as `perdure.models.continuing.continue_rows` does.

    Each next token is the most probable one, with no penalties from the model's generation settings.

    Args:
        model: An image-text model.
        tokenizer: Its tokenizer.
        rows: Rows with pictures, opened a batch at a time.
        enough: Told the row's index and its text so far; whether to stop.
        max_new_tokens: At most this many tokens each.
        tokens: Padded prompt tokens per batch.
        on_done: Told how many rows each batch finished.
    """
    texts, ends = [""] * len(rows), sorted(end_tokens(model, tokenizer))
    for numbers in batched(rows, tokens):
        inputs = inputs_of([rows[number] for number in numbers], asked=True)
        del inputs["position_ids"]  # counted on from the mask while writing, in as many dimensions as the model has
        inputs = {name: tensor.to(bare(model).device) for name, tensor in inputs.items()}
        width = inputs["input_ids"].shape[1]

        def said(ids_T: Tensor, start: int = width) -> str:
            return str(tokenizer.decode(_until_end(ids_T[start:].tolist(), ends), skip_special_tokens=True))

        def done(ids_BT: Tensor, _scores: Any, numbers: Sequence[int] = numbers, **_more: Any) -> Tensor:
            found = [enough(number, said(ids_T)) for number, ids_T in zip(numbers, ids_BT, strict=True)]
            return torch.tensor(found, device=ids_BT.device)

        with _plainly(model, ends):
            written_BT = bare(model).generate(**inputs, max_new_tokens=max_new_tokens, stopping_criteria=[done])
        for number, ids_T in zip(numbers, written_BT, strict=True):
            texts[number] = said(ids_T)
        if on_done:
            on_done(len(numbers))
    return texts


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


@contextmanager
def _plainly(model: Any, ends: Sequence[int]) -> Iterator[None]:
    """While open, the model writes greedily, whatever its own settings are."""
    from transformers import GenerationConfig

    network = bare(model)
    kept = network.generation_config
    network.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=list(ends) or None, pad_token_id=ends[0] if ends else 0
    )
    try:
        yield
    finally:
        network.generation_config = kept
