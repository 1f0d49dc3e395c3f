"""Models with LoRA adapters attached, seen as what they compute: plain weights under the base checkpoint's names.

An additive adapter runs W + BA. A change Δ of that sum is a change of W: (W + Δ) + BA = (W + BA) + Δ, so a
delta solved on the merged weights belongs to the base weights as it is, and the adapter stays what it was.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from perdure.errors import ModelError

F = TypeVar("F", bound=Callable[..., Any])
_MERGE = "merge the adapter for good first (merged = model.merge_and_unload()) and edit the merged model"


def bare(model: Any) -> Any:
    """The transformers model inside a `PeftModel`, adapters still in place; the model itself if it is none."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def adapters_of(model: Any) -> list[str]:
    """The names of the adapters that are at work in the model."""
    layers = [module for module in bare(model).modules() if _is_adapter(module) and not module.disable_adapters]
    return sorted({name for layer in layers for name in layer.active_adapters})


def bare_layer(module: Any) -> Any:
    """The base's own layer inside an adapter layer; the module itself if it is none."""
    return module.base_layer if _is_adapter(module) else module


def is_turned(module: Any) -> bool:
    """Whether a projection stores its weight [I, O], as GPT-2's Conv1D does; inside an adapter layer, too."""
    return type(bare_layer(module)).__name__ == "Conv1D"


def is_projection(module: Any) -> bool:
    """Whether a module is a linear projection; inside an adapter layer, too."""
    return isinstance(bare_layer(module), torch.nn.Linear) or is_turned(module)


def parameters_by_name(model: Any) -> dict[str, Any]:
    """The model's parameters under the names of the base checkpoint; an adapter's own weights are left out."""
    inside = bare(model)
    wrapped = {f"{name}." for name, module in inside.named_modules() if _is_adapter(module)}
    found = {}
    for name, parameter in inside.named_parameters():
        owner = next((prefix for prefix in wrapped if name.startswith(prefix)), None)
        rest = name.removeprefix(owner or "")
        if owner is None:
            found[name] = parameter
        elif rest.startswith("base_layer."):
            found[owner + rest.removeprefix("base_layer.")] = parameter
    return found


@contextmanager
def plain_view(model: Any) -> Iterator[Any]:
    """The model as plain weights, while open: adapters merged, evaluation mode, nothing to train.

    Everything is put back when the block ends: the very same tensors, wrappers, modes and gradient flags.
    A model without adapters costs nothing; of the others the adapted matrices are held twice.

    Raises:
        ModelError: The adapter is not additive (DoRA, IA³, prompts), or trains whole modules.
    """
    inside = bare(model)
    _refuse_prompts(model)
    with ExitStack() as stack:
        for owner, name, module in _adapters(inside):
            stack.enter_context(_merged(inside, owner, name, module))
        for module in inside.modules():
            stack.callback(setattr, module, "training", module.training)
        for parameter in inside.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
        inside.eval().requires_grad_(False)
        yield inside


def on_plain_view(function: F) -> F:
    """The function, its first argument (`model`) replaced by the model's plain view."""

    @wraps(function)
    def run(model: Any, *args: Any, **kwargs: Any) -> Any:
        with plain_view(model) as plain:
            return function(plain, *args, **kwargs)

    return cast("F", run)


def _refuse_prompts(model: Any) -> None:
    prompts = [name for name, config in _configs(model).items() if getattr(config, "is_prompt_learning", False)]
    if prompts:
        raise ModelError(f"adapter {prompts[0]!r} works on the prompt, not on weights, so it cannot be merged")


def _configs(model: Any) -> dict[str, Any]:
    configs = getattr(model, "peft_config", None)
    return configs if isinstance(configs, dict) else {}


def _is_adapter(module: Any) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "active_adapters")


def _adapters(model: Any) -> list[tuple[Any, str, Any]]:
    """Every adapter layer with its parent and its name there.

    Raises:
        ModelError: A whole module was trained in place of the base's.
    """
    found = []
    for place, owner in model.named_modules():
        for name, module in owner.named_children():
            if hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
                raise ModelError(f"the adapter has trained {place}.{name} as a whole in place of the base's; {_MERGE}")
            if _is_adapter(module):
                found.append((owner, name, module))
    return found


@contextmanager
def _merged(model: Any, owner: Any, name: str, module: Any) -> Iterator[None]:
    """While open, the base layer stands in the adapter layer's place and holds the sum of both."""
    layer = module.base_layer
    sums = {} if module.merged or module.disable_adapters else _sums(model, name, module)
    kept = {part: getattr(layer, part).data for part in sums}
    try:
        for part, total in sums.items():
            getattr(layer, part).data = total
        setattr(owner, name, layer)
        yield
    finally:
        setattr(owner, name, module)
        for part, data in kept.items():
            getattr(layer, part).data = data


def _sums(model: Any, name: str, module: Any) -> dict[str, Tensor]:
    """The merged weight and bias of an adapter layer, each rounded once to its dtype.

    Raises:
        ModelError: The adapter is not a sum, or the weight also serves elsewhere.
    """
    layer, active = module.base_layer, [a for a in module.active_adapters if a in getattr(module, "scaling", {})]
    if not hasattr(module, "get_delta_weight") or not hasattr(module, "lora_A"):
        raise ModelError(f"{name} carries a {type(module).__name__}, which is not added to the weight; {_MERGE}")
    if not layer.weight.is_floating_point():
        raise ModelError(f"the weight below the adapter on {name} is quantised and cannot be edited")
    odd = [adapter for adapter in active if adapter in getattr(module, "lora_variant", {})]
    if odd:
        raise ModelError(f"adapter {odd[0]!r} on {name} is a variant of LoRA that is not a plain sum; {_MERGE}")
    if sum(weight is layer.weight for _, weight in model.named_parameters(remove_duplicate=False)) > 1:
        raise ModelError(f"{name} carries an adapter and shares its weight with another module (tied); {_MERGE}")
    if not active:
        return {}
    with torch.no_grad():
        weight = layer.weight.data.float()
        for adapter in active:
            weight = weight + module.get_delta_weight(adapter).to(weight)
        sums = {"weight": weight.to(layer.weight.dtype)}
        biased = [adapter for adapter in active if module.lora_bias.get(adapter)]
        if biased:
            bias = layer.bias.data.float()
            for adapter in biased:
                bias = bias + module.lora_B[adapter].bias.to(bias) * module.scaling[adapter]
            sums["bias"] = bias.to(layer.bias.dtype)
    return sums
