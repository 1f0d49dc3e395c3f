"""The weights under training, seen as what they change: LoRA factors or whole tensors.

Shape suffixes: O rows and I columns of a tensor as it is stored, R rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from perdure.deltas import Change, Delta, LowRank
from perdure.errors import ModelError, SettingError
from perdure.models.adapters import bare, is_turned
from perdure.models.layout import tensors_of
from perdure.tuning.kronecker import Spectrum, cost_of_factors, cost_of_matrix

ADAPTER = "default"


class Trained(Protocol):
    """What is trained, in either form."""

    @property
    def names(self) -> Sequence[str]:
        """The tensors of the base that change."""

    def change(self, name: str) -> Tensor:
        """The change of a tensor as it is stored, [O, I], with gradients."""

    def squared(self, name: str) -> Tensor:
        """‖ΔW‖²_F of a tensor, with gradients; without forming ΔW where it has factors."""

    def cost(self, name: str, outer: Spectrum, inner: Spectrum) -> Tensor:
        """Σ δᵀ(A ⊗ B)δ of a tensor's change over tasks, with gradients; δ is not formed where it has factors."""

    def moving(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By the base tensor's name: a parameter in which its change is linear, and its value where nothing changed."""

    def parameters(self) -> list[Tensor]:
        """Every parameter that has gradients."""

    def delta(self) -> Delta:
        """The change as it is now, on the CPU."""


@dataclass(frozen=True)
class LoraPair:
    """One adapted projection: ΔW = scale · B A, turned where the tensor is stored [I, O]."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    transposed: bool

    def factors(self) -> tuple[Tensor, Tensor]:
        """Left and right factor of the stored tensor's change."""
        left, right = self.b_OR * self.scale, self.a_RI
        return (right.T, left.T) if self.transposed else (left, right)


class LoraTrained:
    """Adapters under training."""

    def __init__(self, pairs: Mapping[str, LoraPair]) -> None:
        self.pairs = dict(pairs)

    @property
    def names(self) -> Sequence[str]:
        """The tensors of the base that change."""
        return list(self.pairs)

    def change(self, name: str) -> Tensor:
        """The change of a tensor as it is stored, [O, I], with gradients."""
        left, right = self.pairs[name].factors()
        product: Tensor = left.float() @ right.float()
        return product

    def squared(self, name: str) -> Tensor:
        """‖ΔW‖²_F = tr((LᵀL)(RRᵀ)), with gradients."""
        left, right = (factor.float() for factor in self.pairs[name].factors())
        return ((left.T @ left) * (right @ right.T)).sum()

    def cost(self, name: str, outer: Spectrum, inner: Spectrum) -> Tensor:
        """Σ δᵀ(A ⊗ B)δ, from the factors, with gradients."""
        left, right = (factor.float() for factor in self.pairs[name].factors())
        return cost_of_factors(left, right, outer, inner)

    def moving(self) -> dict[str, tuple[Tensor, Tensor]]:
        """B of every pair: with A fixed, the change is linear in it, and none where it is zero."""
        return {name: (pair.b_OR, torch.zeros_like(pair.b_OR)) for name, pair in self.pairs.items()}

    def parameters(self) -> list[Tensor]:
        """A and B of every pair."""
        return [factor for pair in self.pairs.values() for factor in (pair.a_RI, pair.b_OR)]

    def delta(self) -> Delta:
        """The adapters as low-rank changes of the stored tensors, float32."""
        changes = {}
        for name, pair in self.pairs.items():
            left, right = pair.factors()
            changes[name] = Change(LowRank(_kept(left), _kept(right)))
        return Delta(changes)


class DenseTrained:
    """Whole tensors under training."""

    def __init__(self, parameters: Mapping[str, Any], before: Mapping[str, Tensor]) -> None:
        self._now, self._before = dict(parameters), dict(before)

    @property
    def names(self) -> Sequence[str]:
        """The tensors that change."""
        return list(self._now)

    def change(self, name: str) -> Tensor:
        """The tensor now minus before, with gradients."""
        change: Tensor = self._now[name].float() - self._before[name].float()
        return change

    def squared(self, name: str) -> Tensor:
        """‖ΔW‖²_F, with gradients."""
        return self.change(name).square().sum()

    def cost(self, name: str, outer: Spectrum, inner: Spectrum) -> Tensor:
        """Σ δᵀ(A ⊗ B)δ, with gradients."""
        return cost_of_matrix(self.change(name), outer, inner)

    def moving(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The tensors themselves, and what they were."""
        return {name: (weight, self._before[name]) for name, weight in self._now.items()}

    def parameters(self) -> list[Tensor]:
        """The tensors themselves."""
        return list(self._now.values())

    def delta(self) -> Delta:
        """What changed, tensor by tensor, float32."""
        return Delta({name: Change(dense=_kept(self.change(name))) for name in self._now})


def bend(trained: Trained, known: Mapping[str, tuple[Spectrum, Spectrum]], names: Sequence[str]) -> Tensor:
    """The most that δᵀFδ of the named tensors together can be, given the F of each, summed over tasks, with gradients.

    With M tensors it is M Σ_m δ_mᵀF_mδ_m: the matrices of a model move together, and for any gradients
    (Σ_m γ_m·δ_m)² ≤ M Σ_m (γ_m·δ_m)² (Cauchy and Schwarz). Zero where nothing is known.

    Args:
        trained: The weights under training.
        known: The factored Fisher information of tensors, where the parameters are.
        names: Which of them.
    """
    parts = [trained.cost(name, *known[name]) for name in names if name in known]
    return len(parts) * torch.stack(parts).sum() if parts else trained.parameters()[0].new_zeros(())


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone().contiguous()


@contextmanager
def lora_attached(
    model: Any,
    modules: Sequence[str],
    *,
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
    start: Delta | None = None,
) -> Iterator[tuple[Any, LoraTrained]]:
    """While open, the model stands in peft's wrapper with a fresh adapter on the named modules.

    A is drawn as peft draws it, from a generator of its own; B is zero, so nothing is changed at first. With `start`
    the adapter is that change, of the same rank, and goes on from there. Afterwards the model has its own modules
    again, with the weights that it had.

    Raises:
        ModelError: The model carries an adapter already, or a module is not a linear one.
    """
    from peft import LoraConfig, get_peft_model

    if hasattr(model, "peft_config"):
        raise ModelError("the model carries an adapter already; merge it first (model.merge_and_unload())")
    transposed = any(is_turned(model.get_submodule(name)) for name in modules)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(modules), fan_in_fan_out=transposed
    )
    with _put_back(model):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # peft draws A on the CPU, whatever the device
            wrapped = get_peft_model(model, config, adapter_name=ADAPTER)
        try:
            pairs = _pairs(model, modules)
            if start is not None:
                _begin(pairs, start)
            yield wrapped, LoraTrained(pairs)
        finally:
            wrapped.unload()
            vars(model).pop("peft_config", None)


@torch.no_grad()
def _begin(pairs: Mapping[str, LoraPair], start: Delta) -> None:
    """Put the factors of a change into the adapters.

    Raises:
        SettingError: It changes other tensors, has another rank, or no factors.
    """
    for name in start.changes.keys() | pairs.keys():
        change = start.changes.get(name)
        if name not in pairs or change is None or change.low_rank is None or change.dense is not None:
            raise SettingError(f"{name}: an adapter goes on only from an adapter on the same projections")
        pair = pairs[name]
        left, right = change.low_rank.left, change.low_rank.right
        b_OR, a_RI = (right.T, left.T) if pair.transposed else (left, right)
        if a_RI.shape != pair.a_RI.shape:
            raise SettingError(f"{name}: an adapter of rank {a_RI.shape[0]} cannot go on with {pair.a_RI.shape[0]}")
        pair.a_RI.copy_(a_RI)
        pair.b_OR.copy_(b_OR / pair.scale)


def _pairs(model: Any, modules: Sequence[str]) -> dict[str, LoraPair]:
    found = {}
    for name in modules:
        layer = bare(model).get_submodule(name)
        a_RI, b_OR = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        found[f"{name}.weight"] = LoraPair(a_RI, b_OR, float(layer.scaling[ADAPTER]), is_turned(layer))
    return found


@contextmanager
def dense_attached(model: Any, names: Sequence[str]) -> Iterator[tuple[Any, DenseTrained]]:
    """While open, the named tensors have gradients, in float32; afterwards all is as it was.

    Half-precision tensors are trained as float32 masters: most of Adam's steps are smaller than half a unit in the
    last place of bfloat16 and would vanish.
    """
    parameters = tensors_of(model, list(names))
    kept = {name: parameter.data for name, parameter in parameters.items()}
    with _put_back(model):
        model.requires_grad_(False)
        try:
            for parameter in parameters.values():
                parameter.data = parameter.data.float().clone()
                parameter.requires_grad_(True)
            yield model, DenseTrained(parameters, kept)
        finally:
            for name, parameter in parameters.items():
                parameter.data, parameter.grad = kept[name], None


@contextmanager
def _put_back(model: Any) -> Iterator[None]:
    """Afterwards the model's flags are what they were: gradients, modes, and what a Trainer sets and leaves.

    While open, the model's own dropout is off: regularizers compare with a reference that has none.
    A Trainer turns the cache of keys and values off, so that answers would be written many times slower, and leaves
    gradient checkpointing on, with its hooks on the embedding.
    """
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    flags = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for name in ("training", "gradient_checkpointing")
        if hasattr(module, name)
    ]
    drops = [
        (module, name, getattr(module, name))
        for module in model.modules()
        for name in ("p" if isinstance(module, torch.nn.Dropout) else "attention_dropout",)
        if isinstance(getattr(module, name, None), float)
    ]
    hooked = hasattr(model, "_require_grads_hook")
    own = vars(model.config)  # a model that reads images has its cache's setting in its text config
    cache = {"use_cache": own["use_cache"]} if "use_cache" in own else {}
    try:
        for module, name, _ in drops:
            setattr(module, name, 0.0)
        yield
    finally:
        for parameter, flag in gradients.items():
            parameter.requires_grad_(flag)
        for module, name, value in (*flags, *drops):
            setattr(module, name, value)
        if hasattr(model, "_require_grads_hook") and not hooked:
            model.disable_input_require_grads()
        own.pop("use_cache", None)
        own.update(cache)
