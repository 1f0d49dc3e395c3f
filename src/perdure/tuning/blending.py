"""The trained weights averaged with those of before: once after the task, or after every step.

Shape suffixes: K groups of tensors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from perdure.deltas import Change, Delta, LowRank
from perdure.tuning.averaging import (
    Shadow,
    average_products,
    isotropic_drift,
    line_search,
    published_share,
    sound_share,
    sound_shares,
)
from perdure.tuning.config import AveragingConfig
from perdure.tuning.kronecker import from_state
from perdure.tuning.reading import evenly
from perdure.tuning.regularizer import Run
from perdure.tuning.stages import stages_of
from perdure.tuning.trained import LoraTrained, Trained, bend

_STEP = 0.1  # of the way back to the weights of before: where the second gradient is taken
FILE = "average.safetensors"
"""The average of a checkpoint; written last, so that it tells that the checkpoint is whole."""


@dataclass(frozen=True)
class Blend:
    """How much of the weights of before is kept.

    Attributes:
        shares: From each tensor's name to β.
        notes: What it was found from, as JSON.
    """

    shares: Mapping[str, float]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, delta: Delta) -> Delta:
        """β θ_old + (1 − β) θ: the change times 1 − β."""
        changes = {name: change * (1 - self.shares.get(name, 0.0)) for name, change in delta.changes.items()}
        return Delta(changes, delta.keys, delta.notes, delta.values)


def blend_of(run: Run, config: AveragingConfig) -> Blend:
    """The shares after a task, in the forms that average once; none otherwise.

    Args:
        run: The task; the model carries what was learnt, and carries it again when this returns.
        config: The settings.
    """
    names = list(run.trained.names)
    if config.form == "ratio":
        return Blend(dict.fromkeys(names, config.ratio), {"form": "ratio", "ratio": config.ratio})
    if config.form != "sound":
        return Blend({})
    return _sound(run, config)


def _sound(run: Run, config: AveragingConfig) -> Blend:
    """The sound form: slope and curvature of the new task's loss along the way it went, on unseen rows if there are."""
    groups = groups_of(run.model, run.base, list(run.trained.names), config.groups)
    rows = evenly(run.watched or run.learnt, config.rows)
    run.around.progress("averaging", 0, len(groups) + 1)
    slope_K, curvature_KK = slopes_and_curvatures(run, groups, rows)
    squares_K = torch.tensor([_squared(run.trained, group) for group in groups], dtype=torch.float64)
    drift_KK = isotropic_drift(curvature_KK, squares_K)
    if config.metric == "fisher" and run.around.states.get("kfac"):
        drift_KK = _informed_drift(run, groups)
    found = _shares(slope_K, curvature_KK, drift_KK, config.strength)
    how = "closed form"
    if found is None:
        drift = float(drift_KK.sum())
        names = [name for group in groups for name in group]
        share = line_search(
            lambda beta: _loss_at(run, rows, dict.fromkeys(names, beta)), drift=drift, strength=config.strength
        )
        found, how = torch.full((len(groups),), share), "line search"
    wanted = {name: float(beta) for group, beta in zip(groups, found, strict=True) for name in group}
    limit = _loss_at(run, rows, dict.fromkeys(wanted, 0.0)) + config.tolerance
    held = held_back(lambda part: _loss_at(run, rows, {name: part * beta for name, beta in wanted.items()}), limit)
    run.around.progress("averaging", len(groups) + 1, len(groups) + 1)
    shares = {name: held * beta for name, beta in wanted.items()}
    notes = {
        "form": "sound",
        "how": how,
        "wanted": [round(float(beta), 6) for beta in found],
        "held_back": held,
        "shares": [round(held * float(beta), 6) for beta in found],
        "slopes": slope_K.tolist(),
        "curvature": float(curvature_KK.sum()),
        "drift": float(drift_KK.sum()),
    }
    return Blend(shares, notes)


@torch.no_grad()
def _informed_drift(run: Run, groups: Sequence[Sequence[str]]) -> Tensor:
    """δ_kᵀMδ_l [K, K] with M the information that kfac keeps of earlier tasks."""
    known = from_state(run.around.states["kfac"], run.trained.parameters()[0].device)
    return torch.diag(torch.stack([bend(run.trained, known, group).double().cpu() for group in groups]))


def _shares(slope_K: Tensor, curvature_KK: Tensor, drift_KK: Tensor, strength: float) -> Tensor | None:
    """One share per group; one for all where the groups' own cannot be told; None where neither can."""
    found = sound_shares(slope_K, curvature_KK, drift_KK, strength)
    if found is not None:
        return found
    share = sound_share(float(slope_K.sum()), float(curvature_KK.sum()), float(drift_KK.sum()), strength)
    return None if share is None else torch.full_like(slope_K, share)


def groups_of(network: Any, base: Any, names: Sequence[str], count: int) -> list[list[str]]:
    """The tensors in at most `count` groups of neighbouring stages, in the order of the stages.

    What stands in none of them, such as embeddings, is with the first.

    Args:
        network: What is trained.
        base: The model inside that has tensors of these names.
        names: Of the tensors.
        count: How many groups.
    """
    stages = [module for module, _ in stages_of(network).values()]
    inside = {id(module): place for place, stage in enumerate(stages) for module in stage.modules()}
    places = {name: inside.get(id(base.get_submodule(name.rpartition(".")[0])), 0) for name in names}
    count = min(count, len(stages))
    grouped: dict[int, list[str]] = {}
    for name in names:
        grouped.setdefault(places[name] * count // len(stages), []).append(name)
    return [grouped[place] for place in sorted(grouped)]


def slopes_and_curvatures(run: Run, groups: Sequence[Sequence[str]], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """g·δ_k [K] and δ_kᵀHδ_l [K, K] of the task's loss over the rows, float64.

    Curvatures are difference quotients of gradients on the same rows, a tenth of the way back: gradients of different
    rows would measure noise. Cost: one gradient more than there are groups.
    """
    moving = run.trained.moving()
    steps = {name: (now.detach() - start.to(now)).clone() for name, (now, start) in moving.items()}
    now = {name: parameter for name, (parameter, _) in moving.items()}
    here = _gradients(run, now, rows)
    slope_K = torch.stack([_along(here, steps, group) for group in groups])
    columns = []
    for place, moved_group in enumerate(groups):
        run.around.progress("averaging", place + 1, len(groups) + 1)
        _shift(now, steps, moved_group, -_STEP)
        try:
            there = _gradients(run, now, rows)
        finally:
            _shift(now, steps, moved_group, _STEP)
        columns.append(torch.stack([(_along(here, steps, g) - _along(there, steps, g)) / _STEP for g in groups]))
    return slope_K, torch.stack(columns, 1)


def _along(gradients: Mapping[str, Tensor], steps: Mapping[str, Tensor], group: Sequence[str]) -> Tensor:
    return torch.stack([(gradients[name].double() * steps[name].double()).sum().cpu() for name in group]).sum()


@torch.no_grad()
def _shift(now: Mapping[str, Tensor], steps: Mapping[str, Tensor], names: Sequence[str], share: float) -> None:
    for name in names:
        now[name].add_(steps[name], alpha=share)


def _gradients(run: Run, now: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The gradient of the mean loss over the rows' tokens."""
    total = {name: torch.zeros_like(parameter) for name, parameter in now.items()}
    count = 0
    run.model.eval()
    for numbers in run.batches(rows, graded=True):
        with torch.enable_grad():
            losses_N = run.forward(run.model, run.batch(numbers)).losses()
            count, loss = count + len(losses_N), losses_N.sum()
        for name, gradient in zip(now, torch.autograd.grad(loss, list(now.values())), strict=True):
            total[name] += gradient
    return {name: gradient / count for name, gradient in total.items()}


@torch.no_grad()
def _loss_at(run: Run, rows: Sequence[int], shares: Mapping[str, float]) -> float:
    """The task's loss with these shares of the weights of before."""
    with averaged(run.trained, shares):
        run.model.eval()
        total, count = 0.0, 0
        for numbers in run.batches(rows, graded=True):
            losses = run.forward(run.model, run.batch(numbers)).losses()
            total, count = total + float(losses.sum()), count + len(losses)
        return total / count


@contextmanager
def averaged(trained: Trained, shares: Mapping[str, float]) -> Iterator[None]:
    """While open, the trained weights are averaged with those of before: a tensor without a share stays."""
    moving = {name: trained.moving()[name] for name, share in shares.items() if share}
    with _holding({name: parameter for name, (parameter, _) in moving.items()}):
        with torch.no_grad():
            for name, (parameter, start) in moving.items():
                parameter.lerp_(start.to(parameter), shares[name])
        yield


@contextmanager
def _holding(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Whatever is done to the parameters while it is open, they are put back."""
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])


def held_back(loss: Callable[[float], float], limit: float, *, steps: int = 4) -> float:
    """The largest part of the wanted shares, in [0, 1], at which the new task's loss stays below a limit.

    Slope and curvature are of one place; further back the loss may rise faster than they say, and what was just learnt
    would be averaged away. All of them where they may be; else found by bisection, so the limit holds where the loss
    rises along the way, to one part in 2^steps.

    Args:
        loss: From a part of the wanted shares to the new task's loss.
        limit: What it must not pass.
        steps: Evaluations beyond the first.
    """
    if loss(1.0) <= limit:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) <= limit else (low, middle)
    return low


def _squared(trained: Trained, group: Sequence[str]) -> float:
    with torch.no_grad():
        return sum(float(trained.squared(name)) for name in group)


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Averages after every step, in the forms that do so; goes on where a checkpoint stopped.

    `fixed` averages the changes as products, from the start of the task on. `published` is LCIA's code: one share per
    trained tensor from its own gradients, LoRA's factors apart, from the second step on; it stands here to be compared.
    """

    def __init__(self, trained: Trained, config: AveragingConfig, folder: Path) -> None:
        self._trained, self._config, self._folder = trained, config, folder
        self._shadow: Shadow | None = None
        self._products: dict[str, LowRank] = {}
        self._before: dict[str, tuple[Tensor, Tensor]] = {}
        self._gradients: dict[str, Tensor] = {}

    @property
    def each_step(self) -> bool:
        """Whether the form averages after every step."""
        return self._config.form in {"fixed", "published"}

    def averaged(self, delta: Delta) -> Delta:
        """The average in place of the last weights."""
        if self._products:
            return Delta({name: Change(product) for name, product in self._products.items()})
        if self._shadow is None:
            return delta
        average = self._shadow.state()
        with _holding(self._named()), torch.no_grad():
            for name, parameter in self._named().items():
                parameter.copy_(average[name])
            return self._trained.delta()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Take up the average of the checkpoint that the training goes on from."""
        file = self._folder / f"checkpoint-{state.global_step}" / FILE
        if state.global_step and file.is_file():
            self._take(load_file(file))

    def on_save(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Keep the average beside the checkpoint."""
        folder = self._folder / f"checkpoint-{state.global_step}"
        kept = self._kept()
        if kept and state.is_world_process_zero:
            part = folder / f"{FILE}.part"
            save_file(kept, part)
            part.rename(folder / FILE)

    def on_train_end(self, args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Where the best weights are taken and not the last, their average too."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._take(load_file(Path(state.best_model_checkpoint) / FILE))

    def on_optimizer_step(self, _args: Any, _state: Any, _control: Any, **_more: Any) -> None:
        """After a step, while its gradients are still there."""
        if self._config.form == "published":
            self._published()
        else:
            self._fixed()

    def _named(self) -> dict[str, Tensor]:
        return {str(place): parameter for place, parameter in enumerate(self._trained.parameters())}

    @torch.no_grad()
    def _fixed(self) -> None:
        if not isinstance(self._trained, LoraTrained):
            if self._shadow is None:
                starts = [start for _, start in self._trained.moving().values()]
                self._shadow = Shadow(dict(zip(self._named(), starts, strict=True)))
            self._shadow.update(self._named(), self._config.decay)
            return
        decay = self._config.decay
        for name, change in self._trained.delta().changes.items():
            assert change.low_rank is not None
            rank = 2 * change.low_rank.rank
            old = self._products.get(name) or LowRank(change.low_rank.left * 0, change.low_rank.right)
            self._products[name] = average_products(old, change.low_rank, decay, rank).change

    @torch.no_grad()
    def _published(self) -> None:
        now = {name: parameter.detach().clone() for name, parameter in self._named().items()}
        gradients = {
            name: torch.zeros_like(now[name]) if parameter.grad is None else parameter.grad.detach().clone()
            for name, parameter in self._named().items()
        }
        if self._shadow is None:
            self._shadow = Shadow(now)
        elif self._gradients:
            average = self._shadow.state()
            for name, (weights, gradient) in self._before.items():
                share = published_share(gradients[name], gradient, now[name], weights, average[name])
                average[name].lerp_(now[name].float(), 1 - share)
            self._shadow = Shadow.resumed(average)
        self._gradients = gradients
        self._before = {name: (now[name], gradients[name]) for name in now}

    def _kept(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if self._shadow is not None:
            found.update({f"shadow.{name}": value for name, value in self._shadow.state().items()})
        for name, product in self._products.items():
            found.update({f"left.{name}": product.left, f"right.{name}": product.right})
        for name, (weights, gradient) in self._before.items():
            found.update({f"weights.{name}": weights, f"gradient.{name}": gradient})
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def _take(self, kept: Mapping[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        home = self._trained.parameters()[0].device
        for key, value in kept.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = value if kind in {"left", "right"} else value.to(home)
        if "shadow" in parts:
            self._shadow = Shadow.resumed(parts["shadow"])
        self._products = {name: LowRank(left, parts["right"][name]) for name, left in parts.get("left", {}).items()}
        self._before = {name: (value, parts["gradient"][name]) for name, value in parts.get("weights", {}).items()}
        self._gradients = parts.get("gradient", {})
