"""One forward pass of a batch: the logits where something is learnt, and what taps saw on the way.

Shape suffixes: B rows, T tokens, N tokens that are learnt, V vocabulary, D hidden size.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from perdure.errors import ModelError
from perdure.models.adapters import bare
from perdure.models.hooks import hidden_of
from perdure.tuning.encoding import IGNORED, Collated

Taps = Mapping[str, tuple[Any, Literal["input", "output"]]]
"""From a name to a module, and whether what it reads or what it gives is seen."""


class Batch(Protocol):
    """Rows that are read together: of tokens, or labelled items."""

    @property
    def rows_B(self) -> Tensor:  # noqa: N802 - a shape suffix
        """Which row of the task each is."""

    @property
    def anchor_B(self) -> Tensor:  # noqa: N802 - a shape suffix
        """Whether each is there for regularizers only."""

    @property
    def numbers(self) -> list[int]:
        """Which row of the task each is."""

    def mask_of(self, size: int) -> Tensor:
        """Where a layer that shows `size` tokens shows one of the row and no padding, [B, T]."""


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed.

    Attributes:
        batch: What was read.
        logits_NV: At the places that predict a learnt token, row after row, or of each item; in the model's own
            precision.
        labels_N: These tokens, or the items' classes.
        rows_N: The row in the batch that each stands in.
        taps: From a tap's name to the tensor [B, T, D] it saw.
    """

    batch: Batch
    logits_NV: Tensor
    labels_N: Tensor
    rows_N: Tensor
    taps: Mapping[str, Tensor]

    @property
    def told(self) -> Tensor:
        """The logits [N, V] in which the model of before can be asked the same: those of its only head."""
        return self.logits_NV

    @property
    def told_rows(self) -> Tensor:
        """The row [N] in the batch that each of `told` stands in."""
        return self.rows_N

    @property
    def counts(self) -> list[int]:
        """How many tokens of each row are learnt."""
        found: list[int] = torch.bincount(self.rows_N, minlength=len(self.batch.rows_B)).tolist()
        return found

    def losses(self) -> Tensor:
        """The NLL of each learnt token, [N], float32."""
        return torch.nn.functional.cross_entropy(self.logits_NV.float(), self.labels_N, reduction="none")

    def sampled_losses(self, generator: torch.Generator) -> Tensor:
        """The NLL [N] of tokens drawn from the model itself, given what stands before them in the data.

        Args:
            generator: Of the CPU, so that every machine draws alike.
        """
        chances_NV = self.logits_NV.detach().float().softmax(-1).cpu()
        drawn_N = torch.multinomial(chances_NV, 1, generator=generator)[:, 0].to(self.logits_NV.device)
        return torch.nn.functional.cross_entropy(self.logits_NV.float(), drawn_N, reduction="none")


@dataclass(frozen=True)
class SeenTokens(Seen):
    """What a forward pass of token rows showed.

    Attributes:
        batch: The rows that were read.
    """

    batch: Collated


def forward(model: Any, batch: Collated, taps: Taps | None = None) -> SeenTokens:
    """One pass; the output head runs on the last places only, those that predict something learnt.

    Args:
        model: A causal language model, or a wrapper of one (adapters, data parallel).
        batch: Rows padded on the left.
        taps: Modules to watch.
    """
    watched: dict[str, Tensor] = {}
    kept = {"logits_to_keep": batch.keep} if _can_keep(model) else {}
    with watching(taps or {}, watched), _own_precision(model):
        output = model(**_inputs(model, batch), **kept, use_cache=False)
    logits_BKV = output.logits[:, -batch.keep :]
    labels_BK = batch.labels_BT[:, -(batch.keep - 1) :] if batch.keep > 1 else batch.labels_BT[:, :0]
    learnt_BK = labels_BK != IGNORED
    return SeenTokens(batch, logits_BKV[:, :-1][learnt_BK], labels_BK[learnt_BK], learnt_BK.nonzero()[:, 0], watched)


@contextmanager
def watching(taps: Taps, watched: dict[str, Tensor]) -> Iterator[None]:
    """While open, `watched` takes what the tapped modules read or give.

    Raises:
        ModelError: A module ran without gradients inside a pass that has them: reentrant checkpointing.
    """
    grad = torch.is_grad_enabled()

    def see(name: str, value: Any) -> None:
        if grad and not torch.is_grad_enabled():
            raise ModelError(
                "reentrant gradient checkpointing runs blocks without gradients, so what is seen in them cannot be "
                "held; use the non-reentrant kind (use_reentrant=False)"
            )
        watched[name] = hidden_of(value)

    with ExitStack() as stack:
        for name, (module, side) in taps.items():
            if side == "input":
                hook = module.register_forward_pre_hook(lambda _m, args, name=name: see(name, args))
            else:
                hook = module.register_forward_hook(lambda _m, _args, out, name=name: see(name, out))
            stack.callback(hook.remove)
        yield
    missing = sorted(taps.keys() - watched.keys())
    if missing:
        raise ModelError(f"the forward pass never reached {missing[:3]}; nothing was seen there")


def _inputs(model: Any, batch: Collated) -> dict[str, Any]:
    """The batch as the model takes it: one that gives places to a picture's tokens in two dimensions counts itself."""
    network = _network(model)
    own = batch.has_pictures and any(hasattr(part, "get_rope_index") for part in (network, network.base_model))
    left_out = {"position_ids"} if own else set()
    return {name: tensor for name, tensor in batch.inputs.items() if name not in left_out}


def _can_keep(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(_network(model).forward).parameters


def _own_precision(model: Any) -> torch.autocast:
    """The model's own precision in every pass alike, read or trained; weights under training may be kept in more."""
    words = _network(model).get_input_embeddings().weight
    half = words.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(words.device.type, words.dtype if half else torch.bfloat16, enabled=half)


def _network(model: Any) -> Any:
    """The transformers model inside whatever wraps it."""
    inside = model
    while hasattr(inside, "module"):  # data parallel
        inside = inside.module
    return bare(inside)
