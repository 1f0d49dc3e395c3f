"""A vector added to a block's output at every token, as weights: the bias of the block's MLP down-projection.

So an injection is a weight change like any other: it is stored, measured, approved, exported and undone as one, and a
model that carries it loads with transformers alone. Shape suffixes: D hidden size.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.errors import ModelError
from perdure.models import Layout

_SWITCH = "mlp_bias"  # of Llama-like configs: whether the MLP's projections have biases


@dataclass(frozen=True)
class Injection:
    """A vector as a change of weights.

    Attributes:
        name: The bias that it is added to.
        vector_D: What is added.
        added: Tensors that the model did not have and must be given first: zeros.
        config: The model's config.json with what makes room for them; None where nothing is added.
    """

    name: str
    vector_D: Tensor
    added: Mapping[str, Tensor]
    config: bytes | None


def injection_of(layout: Layout, config: bytes, layer: int, vector_D: Tensor) -> Injection:
    """The change of weights that adds the vector to what block `layer` gives, at every token.

    Args:
        layout: The model's layout.
        config: Its config.json.
        layer: The block.
        vector_D: What is added, in the hidden state's units.

    Raises:
        ModelError: The MLPs have no biases and the config has no switch for them.
    """
    out = layout.mlp_out[layer]
    name = f"{out.name.removesuffix('weight')}bias"
    dtype = out.module.weight.dtype
    if getattr(out.module, "bias", None) is not None:
        return Injection(name, vector_D.to(dtype), {}, None)
    settings = json.loads(config)
    if settings.get(_SWITCH, _default(settings)) is not False:
        raise ModelError(
            f"{out.name} has no bias, and this architecture's config has no switch ({_SWITCH}) that gives it one: "
            "a vector cannot be carried by its weights. Add it at run time with perdure.vectors.injected"
        )
    matrices = [matrix for matrices in layout.mlp_matrices for matrix in matrices]
    added = {f"{matrix.name.removesuffix('weight')}bias": torch.zeros(matrix.d_out, dtype=dtype) for matrix in matrices}
    text = json.dumps({**settings, _SWITCH: True}, indent=2, sort_keys=True) + "\n"
    return Injection(name, vector_D.to(dtype), added, text.encode())


def _default(settings: Mapping[str, Any]) -> bool | None:
    """What the switch is where a config does not name it, as older ones do not; None where there is none."""
    from transformers import AutoConfig

    try:
        return getattr(AutoConfig.for_model(settings.get("model_type", "")), _SWITCH, None)
    except ValueError:  # no architecture that transformers knows
        return None
