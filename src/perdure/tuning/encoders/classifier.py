"""The network that is trained: an encoder with its head, and the heads of before that may be asked beside it.

Shape suffixes: B rows, K heads, V classes of the largest head, C classes, D features.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from perdure.models.encoders import Encoder, SeenEncoder, Side
from perdure.tuning.encoders.heads import Head, gain
from perdure.tuning.forward import Taps

POOLED = "pooled"
"""The name of the last stage: what a probe reads."""
_NEVER = -1e4  # the logit of a class that a head does not have: no probability in float32, and finite


class Classifier(nn.Module):
    """An encoder and its head.

    The encoder runs in evaluation mode while it is trained, too: no dropout, no stochastic depth, and the batch norms
    of a convolutional net keep the running statistics that they have. The reference has none of these either, and
    statistics that follow the new task are a change that no delta of weights tells.

    Attributes:
        encoder: The encoder; its weights may be under training.
        side: What it reads.
        start: The head that it started from.
        known: How many heads of before there are.
        outcomes: The classes of the largest of them.
    """

    def __init__(
        self, encoder: Encoder, side: Side, head: Head, known: Sequence[Head] = (), *, dtype: torch.dtype | None = None
    ) -> None:
        """An encoder with its head.

        Args:
            encoder: The encoder; its weights may be under training.
            side: What it reads.
            head: What the head starts from.
            known: Heads of before, which are not trained.
            dtype: The encoder's own precision, where weights under training are kept in more.
        """
        super().__init__()
        self.encoder, self.side, self.start = encoder, side, head
        self.network: nn.Module = encoder.model
        weights = next(self.network.parameters())
        self._gain, self._dtype = gain(head.weight_CD.shape[1]), dtype or weights.dtype
        self.weight_CD = nn.Parameter(head.weight_CD.to(weights.device, copy=True) / self._gain)
        self.bias_C = nn.Parameter(head.bias_C.to(weights.device, copy=True))
        self.known = len(known)
        self.outcomes = max((len(each.classes) for each in known), default=2)
        known_KVD = torch.zeros(self.known, self.outcomes, head.weight_CD.shape[1])
        bias_KV = torch.full((self.known, self.outcomes), _NEVER)
        for place, each in enumerate(known):
            known_KVD[place, : len(each.classes)] = each.weight_CD
            bias_KV[place, : len(each.classes)] = each.bias_C
        self._known_KVD, self._known_bias_KV = known_KVD.to(weights.device), bias_KV.to(weights.device)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.weight_CD.device

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode for itself alone; the encoder stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def stages(self) -> Taps:
        """The encoder's stages in depth order; the last is what a probe reads."""
        found: Any = {name: (module, "output") for name, module in self.encoder.stages(self.side).items()}
        return {**found, POOLED: (self, "output")}

    def forward(self, inputs: Mapping[str, Tensor], stages: Sequence[str] = ()) -> tuple[Tensor, SeenEncoder]:
        """The logits [B, C] and what was seen of the encoder."""
        inside = [name for name in stages if name != POOLED]
        with self._own_precision():
            seen = self.encoder.seen(self.side, inputs, inside, grad=True)
        return nn.functional.linear(self._read(seen.pooled_BD), self.weight_CD, self.bias_C), seen

    def told(self, pooled_BD: Tensor) -> Tensor:
        """The logits [B · K, V] of the heads of before, which are not trained."""
        unit_BD = self._read(pooled_BD) / self._gain
        found_BKV = torch.einsum("bd,kvd->bkv", unit_BD, self._known_KVD) + self._known_bias_KV
        return found_BKV.flatten(0, 1)

    def head(self) -> Head:
        """The head as it is now, on the CPU."""
        weight_CD = (self.weight_CD.detach() * self._gain).float().cpu()
        return Head(weight_CD.contiguous(), self.bias_C.detach().float().cpu().clone(), self.start.classes)

    def _read(self, pooled_BD: Tensor) -> Tensor:
        return nn.functional.normalize(pooled_BD.float(), dim=-1) * self._gain

    def _own_precision(self) -> AbstractContextManager[Any]:
        """The encoder's own precision, though weights under training are kept in more."""
        half = self._dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, self._dtype if half else torch.bfloat16, enabled=half)
