"""A pretended accelerator, for machines without one: code that would mix devices fails here as it would there.

Its tensors report the device `cuda:0`, are worked on by the CPU, and refuse to meet tensors of the CPU in one
operation, as CUDA does (numbers without dimensions and indices excepted). It says nothing about the numerics of a
real device, and is slow: every operation passes through Python.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("cuda", 0)
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Elsewhere(torch.Tensor):
    """A tensor that says it lives elsewhere; `inner` holds its numbers. To torch's core it is a meta tensor."""

    device = property(lambda self: DEVICE)

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"Elsewhere({self.inner})"

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, new):
        if not isinstance(new, Elsewhere):
            raise RuntimeError("a tensor from here was put in the place of one elsewhere")
        torch.Tensor.data.__set__(self, new)
        self.inner = new.inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args, kwargs=None):
        return _run(func, args, kwargs or {})


def _is_away(device):
    return isinstance(device, (str, torch.device)) and torch.device(device).type in (DEVICE.type, "meta")


def _run(func, args, kwargs):
    """One operation of torch's core, done on the CPU."""
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim() > 0]
    indexed = "index" in func.__name__ and tensors and isinstance(tensors[0], Elsewhere)
    if away and here and func not in _COPIES and not indexed:
        raise RuntimeError(f"{func}: tensors here and elsewhere are mixed")
    own = [value.inner if isinstance(value, Elsewhere) else value for value in flat]
    own_args, own_kwargs = pytree.tree_unflatten(own, spec)
    asked = kwargs.get("device")
    result = func(*own_args, **(own_kwargs | {"device": "cpu"} if _is_away(asked) else own_kwargs))
    if func is torch.ops.aten.copy_.default:
        return args[0]
    if not _is_away(asked) and (asked is not None or not away):
        return result
    result = pytree.tree_map_only(torch.Tensor, Elsewhere, result)
    return return_and_correct_aliasing(func, args, kwargs, result)


class _Core(TorchDispatchMode):
    """Catches what torch's core makes out of nothing on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Python(TorchFunctionMode):
    """Catches what Python code makes on the device, moves there, or reads as a list."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].detach().inner.tolist()
        if func is torch.Tensor.to:
            return _moved(func, args, kwargs)
        if _is_away(kwargs.get("device")) and not any(isinstance(value, torch.Tensor) for value in args):
            learns = kwargs.pop("requires_grad", False)
            return Elsewhere(func(*args, **kwargs | {"device": "cpu"})).requires_grad_(learns)
        return func(*args, **kwargs)


def _moved(func, args, kwargs):
    own, *rest = args
    like = [value for value in rest if isinstance(value, torch.Tensor)]
    rest = [value for value in rest if not isinstance(value, torch.Tensor)]
    rest += [part for other in like for part in (other.device, other.dtype)]
    if not any(map(_is_away, [*rest, kwargs.get("device")])):
        return func(own, *rest, **kwargs)
    dtype = next((value for value in [*rest, kwargs.get("dtype")] if isinstance(value, torch.dtype)), own.dtype)
    changed = func(own, dtype)
    return changed if isinstance(changed, Elsewhere) else Elsewhere(changed.detach())


@contextmanager
def pretending():
    """While open, `cuda:0` is there."""
    with _Python(), _Core():
        yield


def send(model):
    """The model, all its weights and buffers elsewhere."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(Elsewhere(weight.data), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Elsewhere(buffer)
    model.tie_weights()
    return model
