"""A low-rank change carried by a running model without touching its weights: what an adapter in use is.

Shape suffixes: B rows, T tokens, O outputs, I inputs, R rank.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from perdure.deltas import Delta, LowRank
from perdure.errors import ModelError, SettingError
from perdure.models.adapters import is_turned
from perdure.models.layout import tensors_of


@contextmanager
def carried(model: Any, delta: Delta) -> Iterator[None]:
    """While open, every changed projection gives y + s·B(A x), as peft computes it: in float32, then y's precision.

    The weights stay the very tensors that they are, so nothing has to be put back, a small change is not rounded away
    in bfloat16, and it costs what an adapter costs.

    Raises:
        SettingError: A change that is not low-rank.
        ModelError: A tensor that the model does not have, is no module's weight, or has another shape.
    """
    weights = tensors_of(model, list(delta.changes))
    with ExitStack() as stack:
        for name, change in delta.changes.items():
            if change.low_rank is None or change.dense is not None:
                raise SettingError(f"{name}: only low-rank changes are carried; apply others to the weights")
            module, weight = model.get_submodule(name.removesuffix(".weight")), weights[name]
            if not name.endswith(".weight") or weight.shape != change.shape:
                raise ModelError(f"{name} is {tuple(weight.shape)} here; the adapter is for {tuple(change.shape)}")
            transposed = is_turned(module)
            stack.callback(module.register_forward_hook(_hook(change.low_rank, weight.device, transposed)).remove)
        yield


def _hook(change: LowRank, device: Any, transposed: bool) -> Callable[[Any, Any, Tensor], Tensor]:
    left, right = change.left.to(device).float(), change.right.to(device).float()
    a_IR, b_RO = (left, right) if transposed else (right.T, left.T)

    def add(_module: Any, inputs: Any, output_BTO: Tensor) -> Tensor:
        change_BTO: Tensor = (inputs[0].float() @ a_IR) @ b_RO
        return output_BTO + change_BTO.to(output_BTO.dtype)

    return add
