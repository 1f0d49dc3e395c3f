"""Which layers an editor changes when nobody says."""

from collections.abc import Sequence
from typing import Any

import torch

from perdure.errors import ModelError, SettingError
from perdure.models import Layout, capture, patch_output


def default_layers(layout: Layout) -> list[int]:
    """Layers at 13–23 % of the depth: early, where the subject's attributes are gathered.

    Layers 4–7 of 30 (SmolLM2-135M, chosen by a sweep on CounterFact and our own facts), 4–7 of 32
    (Llama-2-7B: the published choice is 4–8). The last block is left out: nothing above it could read the change.
    """
    depth = len(layout)
    first = min(round(0.13 * depth), max(depth - 2, 0))
    last = min(max(round(0.23 * depth), first), max(depth - 2, 0))
    return list(range(first, last + 1))


def check_layers(layers: Sequence[int], layout: Layout) -> list[int]:
    """The layers, sorted.

    Raises:
        SettingError: Empty, repeated, or outside the model.
    """
    chosen = sorted(layers)
    if not chosen or len(set(chosen)) != len(chosen) or chosen[0] < 0 or chosen[-1] >= len(layout):
        raise SettingError(f"layers must be different numbers from 0 to {len(layout) - 1}; given {list(layers)}")
    return chosen


def check_writable(model: Any, layout: Layout, layer: int) -> None:
    """Check, on two tokens, that the block adds its MLP's output to the hidden state as it is.

    Raises:
        ModelError: It does not (a norm follows the MLP, say), so a value cannot be written by the MLP alone.
    """
    ids = torch.arange(2, device=model.device)[None]  # one of them may be padding, whose embedding is zero

    def block_output() -> torch.Tensor:
        with torch.no_grad():
            return capture(lambda: model(ids, use_cache=False), outputs={"block": layout.blocks[layer]})["block"]

    plain = block_output()
    step = torch.linspace(-1, 1, layout.d_model, device=model.device) * plain.float().abs().mean()
    with patch_output(layout.mlps[layer], lambda hidden: (hidden.float() + step).to(hidden.dtype)):
        moved = block_output().float() - plain.float()
    # A hidden state of 16 bits is rounded by more than the step where it is large, as at massive activations.
    rounding = 2 * torch.finfo(plain.dtype).eps * plain[0].abs().float()
    if not ((moved[0] - step).abs() <= 0.05 * (step.abs() + step.abs().max()) + rounding).all():
        raise ModelError(
            f"block {layer} of {type(model).__name__} does not add its MLP's output to the hidden state as it is; "
            "what is written through the MLP (values of facts, vectors) does not fit this architecture"
        )
