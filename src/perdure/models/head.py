"""Logits at chosen positions only: the output head is the widest matrix, and most positions are not asked for.

Shape suffixes: B rows, T tokens, D hidden size, N chosen positions, V vocabulary.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from perdure.models.adapters import bare

_PLAIN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def logits_at(model: Any, rows_N: Tensor, columns_N: Tensor, **inputs: Any) -> Tensor:
    """The logits [N, V] at positions (row, column) of a forward pass, float32 or wider.

    The head runs on these positions alone wherever logits = head(last hidden state). Models that scale or
    cap their logits are noticed once and asked for all logits.
    """
    model = bare(model)
    if head_is_plain(model):
        hidden_BTD = model.base_model(**inputs)[0]
        logits_NV = model.get_output_embeddings()(hidden_BTD[rows_N, columns_N])
    else:
        logits_NV = model(**inputs).logits[rows_N, columns_N]
    wide: Tensor = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return wide


def head_is_plain(model: Any) -> bool:
    """Whether the model's logits are its head applied to the base model's output; seen once, on two tokens.

    Two different ones: an embedding of padding is zero, and so would be all logits of it, scaled or not.
    """
    model = bare(model)
    if model not in _PLAIN:
        ids = torch.arange(2, device=model.device)[None]
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids)[0]
            mine, own = model.get_output_embeddings()(hidden), model(input_ids=ids).logits
        _PLAIN[model] = mine.shape == own.shape and torch.allclose(mine, own, rtol=1e-3, atol=1e-4)
    return _PLAIN[model]
