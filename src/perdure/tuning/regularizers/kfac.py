"""The Kronecker-factored Laplace approximation: earlier tasks' losses to second order, held without their data.

Ritter, Botev and Barber, "Online Structured Laplace Approximations for Overcoming Catastrophic Forgetting", NeurIPS
2018. The factors are those of `perdure.tuning.kronecker`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.content import atomic_path
from perdure.errors import SettingError
from perdure.models.adapters import is_projection, is_turned
from perdure.registry import regularizers
from perdure.tuning.forward import Seen, Taps, watching
from perdure.tuning.kronecker import FactorSketch, Spectrum, as_state, from_state, summed
from perdure.tuning.reading import evaluating, evenly
from perdure.tuning.regularizer import RegularizerConfig, Run, State, cache_file
from perdure.tuning.trained import bend


class KFACConfig(RegularizerConfig):
    """Settings of the Kronecker-factored Laplace approximation."""

    kind: Literal["kfac"] = "kfac"
    weight: float = Field(
        1.0,
        ge=0,
        description="λ; 1 counts the most that a learnt token of each earlier task may lose like a new one's loss",
    )
    rows: int = Field(64, ge=1, description="Examples of a finished task on which its Fisher information is taken")
    rank: int = Field(16, ge=1, description="Directions kept of each factor; the others are held by their mean")

    @property
    def reads_anchors(self) -> bool:
        """They stand for what the model could before the first task."""
        return True


@regularizers.register("kfac", config=KFACConfig, paper="Ritter et al., NeurIPS 2018, arXiv 1805.07810")
class KFAC:
    """Holds matrices by how much earlier tasks' losses bend: ½ M Σ_tasks δᵀ(A ⊗ B)δ (equation 6, one anchor)."""

    def __init__(self, config: KFACConfig) -> None:
        self._config = config

    def taps(self, _model: object) -> Taps:
        """Nothing."""
        return {}

    def prepare(self, run: Run) -> None:
        """Take the information of the earlier tasks; before the first, that of the anchors, where there are any.

        Raises:
            SettingError: Nothing that is trained is a projection.
        """
        _projections(run)
        self._trained = run.trained
        self._known = run.around.states.get("kfac") or self._of_anchors(run)
        self._held = from_state(self._known, run.trained.parameters()[0].device)

    def penalty(self, _seen: Seen) -> Tensor:
        """½ M Σ δᵀ(A ⊗ B)δ over M trained matrices and earlier tasks, nats a token; zero for the first task."""
        return bend(self._trained, self._held, self._trained.names) / 2

    def after_task(self, run: Run) -> State:
        """The information of all tasks so far, task by task."""
        rows = evenly(run.learnt, self._config.rows)
        return as_state(summed(from_state(self._known), information(run, rows, self._config.rank)))

    def _of_anchors(self, run: Run) -> State:
        """The information of what stands for all that the model could before the first task; computed once."""
        rows = [number for number, anchor in enumerate(run.anchors) if anchor]
        if not rows:
            return {}
        file = cache_file(run, "previous", {"kfac": self._config.rank})
        if file is not None and file.is_file():
            return load_file(file)
        state = as_state(information(run, rows, self._config.rank))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as scratch:
                save_file(state, scratch)
        return state


def information(run: Run, rows: Sequence[int], rank: int) -> dict[str, tuple[Spectrum, Spectrum]]:
    """The Fisher information of the mean loss a token of rows, at the model as it is, factored for each projection.

    Labels are drawn from the model itself, as the definition asks: with those of the data it vanishes where they are
    fitted. What is drawn for one place says nothing of another's, so a row's gradient sums over its places.

    Args:
        run: The task.
        rows: Numbers of the rows.
        rank: Directions kept of each factor.
    """
    modules = _projections(run)
    inputs: Taps = {f"input.{name}": (module, "input") for name, module in modules.items()}
    outputs: Taps = {f"output.{name}": (module, "output") for name, module in modules.items()}
    device = run.trained.parameters()[0].device
    sketches: dict[str, FactorSketch] = {}
    generator, learnt, done = torch.Generator().manual_seed(0), 0, 0
    with evaluating(run.model):
        for numbers in run.batches(rows, graded=True):
            run.around.progress("Fisher information", done, len(rows))
            batch = run.batch(numbers)
            watched: dict[str, Tensor] = {}
            with torch.enable_grad(), watching({**inputs, **outputs}, watched):
                losses_N = run.forward(run.model, batch).sampled_losses(generator)
            gradients = torch.autograd.grad(losses_N.sum(), [watched[name] for name in outputs])
            for name, gradient in zip(modules, gradients, strict=True):
                x_BTI = _rows(watched[f"input.{name}"].detach(), len(numbers))
                g_BTO = _rows(gradient, len(numbers)) * batch.mask_of(x_BTI.shape[1])[..., None]
                if name not in sketches:
                    sketches[name] = FactorSketch(g_BTO.shape[-1], x_BTI.shape[-1], rank, device)
                sketches[name].add(x_BTI, g_BTO)
            learnt, done = learnt + len(losses_N), done + len(numbers)
    run.around.progress("Fisher information", len(rows), len(rows))
    found = {}
    for name, sketch in sketches.items():
        outer, inner = sketch.spectra(learnt)
        found[name] = (inner, outer) if is_turned(modules[name]) else (outer, inner)
    return found


def _projections(run: Run) -> Mapping[str, Any]:
    """The modules of the trained tensors that multiply by them; convolutions, norms and embeddings are left out."""
    found = {}
    for name in run.trained.names:
        module = run.base.get_submodule(name.rpartition(".")[0])
        if is_projection(module) and name.endswith(".weight"):
            found[name] = module
    if not found:
        raise SettingError("kfac holds projections (linear layers), and none is trained here; take l2sp or ewc")
    return found


def _rows(seen: Tensor, count: int) -> Tensor:
    """What rows show as [B, T, N], windows and places of an image one after the other."""
    return seen.reshape(count, -1, seen.shape[-1])
