"""Second moments C = E[k kᵀ] of what a projection reads, over text: what an edit must leave in place.

Computed for all layers in one pass that ends at the last one, and kept in the cache under the hashes of the
model, the text and the settings. Shape suffixes: I inputs of a projection, T tokens.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.content import atomic_path, cache_folder, digest_json, digest_tensor
from perdure.errors import EditError, SettingError
from perdure.models import capture, layout_of
from perdure.models.adapters import on_plain_view
from perdure.models.tokens import encode, pad

_WINDOW = 128
_RIDGE = 1e-5


@dataclass(frozen=True)
class SecondMoment:
    """C of one projection.

    Attributes:
        matrix: E[k kᵀ], [I, I], float64; a mean over tokens, not a sum.
        tokens: How many tokens it was taken over.
    """

    matrix: Tensor
    tokens: int

    @property
    def ridged(self) -> Tensor:
        """C plus 1e-5 of its mean diagonal, [I, I].

        The ridge keeps directions that the text never showed from being free; with tokens ≥ 10·I it is far
        below every eigenvalue that matters.
        """
        size = self.matrix.shape[0]
        ridge_II: Tensor = _RIDGE * self.matrix.diagonal().mean() * torch.eye(size, dtype=torch.float64)
        return self.matrix + ridge_II

    @cached_property
    def factor(self) -> Tensor:
        """The lower Cholesky factor of `ridged`, [I, I].

        Raises:
            EditError: C is not positive definite: NaN, or no text at all.
        """
        factor_II, failed = torch.linalg.cholesky_ex(self.ridged)
        if failed or not torch.isfinite(factor_II).all():
            raise EditError(f"the second moment over {self.tokens} tokens is not positive definite; give more text")
        wide: Tensor = factor_II
        return wide

    def whiten(self, key_IN: Tensor) -> Tensor:
        """Keys [I, N], float64, in coordinates in which those of the text have the second moment 1."""
        white: Tensor = torch.linalg.solve_triangular(self.factor, key_IN.double(), upper=False)
        return white

    def solve(self, right_IN: Tensor) -> Tensor:
        """C⁻¹ X, [I, N], float64."""
        solved: Tensor = torch.cholesky_solve(right_IN.double(), self.factor)
        return solved


@dataclass(frozen=True)
class Eigenbasis:
    """C = V Λ Vᵀ of one projection.

    Attributes:
        values: The diagonal of Λ [I], float64, ascending, none below zero.
        vectors: V [I, I], float64; column i belongs to value i.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, moment: SecondMoment) -> "Eigenbasis":
        """Of a second moment, by `eigh`: about 9·I³ operations.

        Raises:
            EditError: C is not finite.
        """
        if not torch.isfinite(moment.matrix).all():
            raise EditError(f"the second moment over {moment.tokens} tokens holds NaN or infinite numbers")
        values_I, vectors_II = torch.linalg.eigh(moment.matrix)
        # Laid out as the cache gives it back, so that a first run and a later one sum in the same order.
        return cls(values_I.clamp(min=0), vectors_II.contiguous())


@dataclass(frozen=True)
class Moments:
    """Second moments of the down-projections of one model over one text, computed when asked for.

    Attributes:
        source: Gives the model and the tokenizer that the moments belong to, without edits: the base.
        texts: The text; the built-in passages when not given.
        model_id: What names the model in the cache; the hash of its weights by default.
        progress: Told (windows done, windows in all).
        unedited: Opened while the model is read, so that it is read without the edits that it may carry.
    """

    source: Callable[[], tuple[Any, Any]]
    texts: Sequence[str] | None = None
    model_id: str = ""
    progress: Callable[[int, int], None] | None = None
    unedited: Callable[[], AbstractContextManager[None]] = nullcontext
    _held: dict[int, SecondMoment] = field(default_factory=dict, repr=False)
    _bases: dict[int, Eigenbasis] = field(default_factory=dict, repr=False)

    @classmethod
    def of_model(cls, model: Any, tokenizer: Any) -> "Moments":
        """The moments of a model that is at hand, over the built-in text."""
        return cls(lambda: (model, tokenizer))

    def of(self, layers: Sequence[int]) -> dict[int, SecondMoment]:
        """C of each layer's down-projection, from memory, from the cache, or computed now."""
        for layer in layers:
            known = None if layer in self._held else _read(self._file(layer))
            if known is not None:
                self._held[layer] = known
        missing = sorted(set(layers) - set(self._held))
        if missing:
            with self.unedited():
                found = second_moments(*self._network, missing, self._texts, progress=self.progress)
            for layer, moment in found.items():
                _write(self._file(layer), moment)
                self._held[layer] = moment
        return {layer: self._held[layer] for layer in layers}

    def eigenbases(
        self, layers: Sequence[int], progress: Callable[[int, int], None] | None = None
    ) -> dict[int, Eigenbasis]:
        """The eigenbasis of each layer's C, from memory, from the cache, or computed now.

        Args:
            layers: The layers.
            progress: Told (layers decomposed, layers to decompose).
        """
        for layer in layers:
            known = None if layer in self._bases else _read_basis(self._file(layer, ".eigenbasis"))
            if known is not None:
                self._bases[layer] = known
        missing = sorted(set(layers) - set(self._bases))
        told = progress or (lambda _done, _total: None)
        for done, (layer, moment) in enumerate(self.of(missing).items()):
            told(done, len(missing))
            self._bases[layer] = Eigenbasis.of(moment)
            _write_basis(self._file(layer, ".eigenbasis"), self._bases[layer])
        if missing:
            told(len(missing), len(missing))
        return {layer: self._bases[layer] for layer in layers}

    @cached_property
    def text_id(self) -> str:
        """The hash of the text, the window and the form of the statistic."""
        return digest_json({"texts": list(self._texts), "window": _WINDOW, "what": "mean k kT of mlp_out inputs"})

    @property
    def _texts(self) -> Sequence[str]:
        return built_in_texts() if self.texts is None else self.texts

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        return self.source()

    @cached_property
    def _model_id(self) -> str:
        if self.model_id:
            return self.model_id
        with self.unedited():
            return digest_model(self._network[0])

    def _file(self, layer: int, ending: str = "") -> Path:
        return cache_folder() / "moments" / f"{self._model_id[:16]}-{self.text_id[:16]}-{layer}{ending}.safetensors"


@on_plain_view
def digest_model(model: Any) -> str:
    """One hash over all weights of a model."""
    return digest_json({name: digest_tensor(weight) for name, weight in model.named_parameters()})


@lru_cache
def built_in_texts() -> tuple[str, ...]:
    """The passages that come with perdure: about 46,000 tokens of mixed text, written for this purpose."""
    lines = resources.files("perdure.editing").joinpath("text/passages.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line)["text"] for line in lines.splitlines() if line.strip())


@on_plain_view
def second_moments(
    model: Any,
    tokenizer: Any,
    layers: Sequence[int],
    texts: Sequence[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, SecondMoment]:
    """C of the down-projections of `layers` over `texts`, in one pass that stops after the last of them.

    Cost: the forward pass up to that layer, plus T · I² multiply-adds per layer for the products.

    Raises:
        SettingError: The text is empty.
    """
    layout = layout_of(model)
    rows = [row for text in texts for row in _windows(encode(tokenizer, text))]
    if not rows:
        raise SettingError("second moments need text; the text given holds no tokens")
    wanted = {layer: layout.mlp_out[layer].module for layer in layers}
    totals = {layer: _zeros(layout.mlp_out[layer].d_in, model) for layer in layers}
    per_batch = 8
    for start in range(0, len(rows), per_batch):
        batch = pad(rows[start : start + per_batch], device=model.device)
        with torch.no_grad():
            seen = capture(partial(model, **batch.inputs(), use_cache=False), inputs=wanted)
        for layer in layers:
            key_TI = seen[layer][batch.mask.bool()].float()
            totals[layer] += (key_TI.T @ key_TI).double()
        if progress:
            progress(min(start + per_batch, len(rows)), len(rows))
    tokens = sum(map(len, rows))
    # Rounded as the cache stores it, so that a first run and a later one solve with the same numbers.
    return {layer: SecondMoment((total / tokens).float().double().cpu(), tokens) for layer, total in totals.items()}


def _zeros(size: int, model: Any) -> Tensor:
    return torch.zeros(size, size, dtype=torch.float64, device=model.device)


def _windows(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW)]


def _write(path: Path, moment: SecondMoment) -> None:
    tensors = {"matrix": moment.matrix.float(), "tokens": torch.tensor(moment.tokens)}
    with suppress(OSError), atomic_path(path) as scratch:  # a cache that cannot be written costs time only
        save_file(tensors, scratch)


def _read(path: Path) -> SecondMoment | None:
    """What the cache holds; None if it is missing or damaged, and is then computed again."""
    try:
        found = load_file(path)
        moment = SecondMoment(found["matrix"].double(), int(found["tokens"]))
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    square = moment.matrix.dim() == 2 and moment.matrix.shape[0] == moment.matrix.shape[1]
    return moment if square and torch.isfinite(moment.matrix).all() else None


def _write_basis(path: Path, basis: Eigenbasis) -> None:
    """In float64: in float32 a projector made of it would not be one."""
    with suppress(OSError), atomic_path(path) as scratch:
        save_file({"values": basis.values, "vectors": basis.vectors}, scratch)


def _read_basis(path: Path) -> Eigenbasis | None:
    """What the cache holds; None if it is missing or damaged, and is then computed again."""
    try:
        found = load_file(path)
        basis = Eigenbasis(found["values"], found["vectors"])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    fits = basis.vectors.shape == 2 * basis.values.shape and basis.vectors.dtype == torch.float64
    return basis if fits and all(torch.isfinite(part).all() for part in (basis.values, basis.vectors)) else None
