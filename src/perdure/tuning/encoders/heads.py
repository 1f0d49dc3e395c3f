"""The head of an encoder: one linear layer on unit features, where it starts from, and its file.

A head reads features of length one, as linear probes, nearest neighbours and zero-shot classifiers do. What is tuned
and what is measured then read the same, a fine-tuning from a probe starts at exactly the probe's accuracy, and the
scale of the features, which nothing else reads, is not learnt from.
Shape suffixes: B rows, N train rows, C classes, D features.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from perdure.content import atomic_path, canonical_json, digest_json, digest_tensor
from perdure.errors import IntegrityError, SettingError
from perdure.models.encoders import Encoder
from perdure.tuning.encoders.probing import fitted_probe

_KEY = "perdure.head"


@dataclass(frozen=True)
class Head:
    """A linear classifier of unit features.

    Attributes:
        weight_CD: One direction a class, float32.
        bias_C: What is added, float32.
        classes: Their names.
    """

    weight_CD: Tensor
    bias_C: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.classes)
        if self.weight_CD.dim() != 2 or len(self.weight_CD) != count or self.bias_C.shape != (count,):
            shapes = f"{list(self.weight_CD.shape)} and {list(self.bias_C.shape)}"
            raise SettingError(f"a head of {count} classes needs weights [C, D] and a bias [C]; given {shapes}")

    @property
    def digest(self) -> str:
        """The identity of its weights and classes."""
        return digest_json([digest_tensor(self.weight_CD), digest_tensor(self.bias_C), self.classes])

    def logits(self, pooled_BD: Tensor) -> Tensor:
        """The logits [B, C] of what a probe reads."""
        unit_BD = torch.nn.functional.normalize(pooled_BD.float(), dim=-1)
        return torch.nn.functional.linear(unit_BD, self.weight_CD.to(unit_BD), self.bias_C.to(unit_BD))

    def blended(self, before: "Head", share: float) -> "Head":
        """share · before + (1 − share) · this one: the head of a WiSE-FT.

        Raises:
            SettingError: They are of other classes.
        """
        if before.classes != self.classes:
            raise SettingError("heads of different classes cannot be averaged")
        weight_CD = torch.lerp(self.weight_CD, before.weight_CD, share)
        return Head(weight_CD, torch.lerp(self.bias_C, before.bias_C, share), self.classes)


def save_head(head: Head, path: Path) -> None:
    """Write a head to `path`, atomically; the same head always gives the same bytes."""
    tensors = {"weight": head.weight_CD.contiguous().cpu(), "bias": head.bias_C.contiguous().cpu()}
    with atomic_path(path) as scratch:
        save_file(tensors, scratch, metadata={_KEY: canonical_json({"format": 1, "classes": list(head.classes)})})


def load_head(path: Path) -> Head:
    """Read a head written by `save_head`.

    Raises:
        IntegrityError: The file is missing, cut off, no head, or holds NaN.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            classes = json.loads((stream.metadata() or {})[_KEY])["classes"]
            weight_CD, bias_C = stream.get_tensor("weight"), stream.get_tensor("bias")
        head = Head(weight_CD, bias_C, tuple(map(str, classes)))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path} is not a readable head: {error}") from error
    if not (torch.isfinite(weight_CD).all() and torch.isfinite(bias_C).all()):
        raise IntegrityError(f"{path} holds NaN or infinite numbers")
    return head


def random_head(width: int, classes: Sequence[str], seed: int) -> Head:
    """A head that knows nothing: uniform in ±1, as a fresh linear layer on features of unit mean square."""
    generator = torch.Generator().manual_seed(seed)
    weight_CD = torch.rand(len(classes), width, generator=generator) * 2 - 1
    return Head(weight_CD, torch.zeros(len(classes)), tuple(classes))


def probe_head(pooled_ND: Tensor, labels: Sequence[int], classes: Sequence[str], seed: int) -> Head:
    """The head that a linear probe of frozen features is: the first stage of LP-FT, solved to its end.

    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.

    Raises:
        SettingError: A class without rows.
    """
    probe = fitted_probe(pooled_ND.double().cpu().numpy(), np.asarray(labels, np.int64), seed=seed)
    if len(probe.labels_C) < len(classes):
        missing = sorted(set(range(len(classes))) - set(probe.labels_C.tolist()))
        raise SettingError(f"class {classes[missing[0]]!r} has nothing to learn from; head=random needs no probe")
    return Head(torch.from_numpy(probe.weight_CD).float(), torch.from_numpy(probe.bias_C).float(), tuple(classes))


def zero_shot_head(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> Head:
    """The head that the classes' names are: embeddings of prompts, times the scale that the model has learnt.

    Raises:
        ModelError: The encoder has no text tower beside that of images.
    """
    weight_CD: Any = encoder.class_weights(list(classes), list(templates)) * encoder.logit_scale
    return Head(weight_CD.detach().float().cpu(), torch.zeros(len(classes)), tuple(classes))


def gain(width: int) -> float:
    """√D: by it unit features are multiplied and weights divided while a head is trained.

    Every feature then has a mean square of one, as after a norm, and AdamW's steps, which are of one size for every
    weight, move a logit as far as in any other layer.
    """
    return math.sqrt(width)
