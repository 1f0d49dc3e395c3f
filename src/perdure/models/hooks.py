"""Looking inside a running model and steering it: capture, patch, and running only the upper part.

Decoder blocks return a Tensor in some architectures and a tuple in others; everything that depends on
it is here. Shape suffixes: B rows, T tokens, D hidden size.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from perdure.errors import ModelError


class _Stop(Exception):  # noqa: N818 - a signal to leave the forward pass, not an error
    """Ends a forward pass once everything wanted has been seen."""


def hidden_of(output: Any) -> Tensor:
    """The hidden state [B, T, D] in what a module returned.

    Raises:
        ModelError: The module returned neither a Tensor nor a tuple that starts with one.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    raise ModelError(f"a module returned {type(output).__name__}; a Tensor or a tuple starting with one is understood")


def _with_hidden(output: Any, hidden_BTD: Tensor) -> Any:
    return hidden_BTD if isinstance(output, Tensor) else (hidden_BTD, *output[1:])


def capture(
    run: Callable[[], Any],
    *,
    inputs: Mapping[Any, Any] | None = None,
    outputs: Mapping[Any, Any] | None = None,
    whole: bool = False,
    keep: Callable[[Tensor], Tensor] = lambda seen: seen,
) -> dict[Any, Tensor]:
    """What modules read (first positional input) or gave (hidden state) during `run()`.

    The forward pass is left as soon as everything wanted was seen, unless `whole`.

    Args:
        run: Calls the model.
        inputs: Modules whose input is wanted, under keys of your choice.
        outputs: Modules whose output is wanted.
        whole: Let the forward pass run to its end.
        keep: What of each tensor is kept, where not all of it is wanted.

    Raises:
        ModelError: A module was never called.
    """
    read, given = inputs or {}, outputs or {}
    seen: dict[Any, Tensor] = {}

    def note(key: Hashable, value: Any) -> None:
        seen[key] = keep(hidden_of(value))
        if not whole and len(seen) == len(read) + len(given):
            raise _Stop

    with ExitStack() as stack:
        for key, module in read.items():
            hook = module.register_forward_pre_hook(lambda _m, args, key=key: note(key, args))
            stack.callback(hook.remove)
        for key, module in given.items():
            hook = module.register_forward_hook(lambda _m, _args, out, key=key: note(key, out))
            stack.callback(hook.remove)
        with suppress(_Stop):
            run()
    missing = [key for key in (*read, *given) if key not in seen]
    if missing:
        raise ModelError(f"the forward pass never reached {missing[:3]}; nothing was captured there")
    return seen


def returns_tuple(model: Any, block: Any) -> bool:
    """Whether a decoder block hands on a tuple rather than a Tensor, seen on one token."""
    kinds: list[bool] = []

    def note(_module: Any, _args: Any, output: Any) -> None:
        hidden_of(output)
        kinds.append(isinstance(output, tuple))
        raise _Stop

    hook = block.register_forward_hook(note)
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device))
    except _Stop:
        pass
    finally:
        hook.remove()
    return kinds[0]


@contextmanager
def patch_output(module: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, `change` replaces the hidden state [B, T, D] that the module returns."""
    hook = module.register_forward_hook(lambda _m, _args, out: _with_hidden(out, change(hidden_of(out))))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def patch_input(module: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, `change` replaces the first positional input [B, T, D] that the module reads."""
    hook = module.register_forward_pre_hook(lambda _m, args: (change(hidden_of(args)), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def resume_above(
    blocks: tuple[Any, ...], layer: int, hidden: Callable[[], Tensor], *, as_tuple: bool
) -> Iterator[None]:
    """While open, blocks 0..layer cost nothing and block `layer` returns `hidden()`.

    The embedding, the masks, the positions and the upper blocks are the model's own, so this holds for
    every architecture. Gradients flow into `hidden()`. `as_tuple` is what `returns_tuple` says.
    """
    skipped = blocks[: layer + 1]
    own = [vars(block).get("forward") for block in skipped]  # accelerate puts one there

    def replace(block: Any, value: Callable[[Any], Any]) -> None:
        def forward(hidden_states: Any, *_args: Any, **_kwargs: Any) -> Any:
            return (value(hidden_states),) if as_tuple else value(hidden_states)

        block.forward = forward

    try:
        for block in skipped[:-1]:
            replace(block, lambda hidden_states: hidden_states)
        replace(skipped[-1], lambda _hidden_states: hidden())
        yield
    finally:
        for block, forward in zip(skipped, own, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward
