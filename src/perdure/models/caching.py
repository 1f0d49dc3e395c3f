"""Attention keys and values as plain tensors: what many rows have in common is read once and handed to each.

Shape suffixes: B rows, H key-value heads, P tokens already read, E size of a head.
"""

from typing import Any

from torch import Tensor

KeysValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [B, H, P, E], a pair per block."""


def cache_of(model: Any, past: KeysValues) -> Any:
    """A cache of its own for one forward pass, holding these keys and values."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for index, (key, value) in enumerate(past):
        if key.shape[2]:
            cache.update(key, value, index)
    return cache


def keys_values(cache: Any, columns: int | None = None) -> KeysValues:
    """What a cache holds, of its first columns or all of them, for the blocks that were run."""
    filled = (layer for layer in cache.layers if layer.keys is not None and layer.keys.numel())
    return tuple(
        (layer.keys[:, :, :columns].contiguous(), layer.values[:, :, :columns].contiguous()) for layer in filled
    )


def first_columns(past: KeysValues, length: int, times: int = 1) -> KeysValues:
    """The first `length` tokens of these keys and values, every row as many times."""
    return tuple(
        (key[:, :, :length].repeat_interleave(times, 0), value[:, :, :length].repeat_interleave(times, 0))
        for key, value in past
    )
