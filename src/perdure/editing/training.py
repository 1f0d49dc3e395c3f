"""Gradient descent on answers: Adam over named matrices of a live model, which comes back as it was.

The plumbing that every method that trains weights is built on; what is trained on which answers, and what is done
with the change, is the method's affair. Shape suffixes: N answer tokens of a batch, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.editing.applying import restoring
from perdure.errors import EditError
from perdure.models.head import logits_at
from perdure.models.layout import tensors_of
from perdure.models.tokens import encode_pair, pad
from perdure.progress import Progress, silent

AfterStep = Callable[[str, Tensor, Tensor], Tensor]
"""Told a matrix's name, its weights now and its weights before the training; gives the weights to go on with."""

Observer = Callable[[str, Tensor, Tensor], None]
"""Told a matrix's name, its weights and its gradient, before each step; all float32, not to be kept or changed."""

_Row = tuple[list[int], int]  # the ids of prompt and answer, and where the answer starts


class TrainingConfig(BaseModel):
    """Settings of a training; a method's own settings come on top."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(30, ge=1, description="At most this many passes over the facts")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's learning rate")
    stop_loss: float = Field(
        0.05, ge=0, description="Training ends when the mean loss is below this; 0: all passes are done"
    )
    batch_size: int = Field(16, ge=1, description="Facts per step")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the order of facts")


@dataclass(frozen=True)
class Training:
    """What a training did.

    Attributes:
        deltas: From each matrix's name to its weights after minus before, float32, on the CPU.
        losses: The mean loss of each pass, as its steps met it.
    """

    deltas: dict[str, Tensor]
    losses: list[float]


def train(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    config: TrainingConfig,
    *,
    progress: Progress = silent,
    stage: str = "fine-tuning",
    start: Mapping[str, Tensor] | None = None,
    after_step: AfterStep | None = None,
    observe: Observer | None = None,
) -> Training:
    """The change that Adam makes to the named matrices on the answers; the model is left as it was.

    The loss is the mean over pairs of the mean NLL of the answer's tokens after the prompt. Float32 masters are
    trained and the model runs on them rounded: in bfloat16 most of Adam's steps are smaller than half a unit in
    the last place and would vanish. The order of the pairs depends on the seed, their number and the pass alone,
    so two trainings with equal settings and `stop_loss=0` take equally many steps over the same places.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        pairs: Prompts and answers; the space between them is added where the language writes one.
        names: The matrices to train, by their names in the checkpoint.
        config: Passes, learning rate, stop, batch and seed.
        progress: Told how many passes are done.
        stage: What the work is called there.
        start: Weights to start from, float32, instead of the model's own; the delta counts from the model's own.
        after_step: Changes each matrix after each step, to hold it within bounds.
        observe: Watches weights and gradients before each step.

    Raises:
        EditError: The loss became NaN or infinite.
        ModelError: The model has no tensor of a name.
    """
    encoded = [encode_pair(tokenizer, prompt, answer) for prompt, answer in pairs]
    with restoring(model, names), _only_these_learn(model, names) as parameters:
        run = _Run(model, parameters, start or {}, config.learning_rate, after_step=after_step, observe=observe)
        losses = list(_passes(run, encoded, config, progress, stage))
        return Training(run.deltas(), losses)


@contextmanager
def keeping_gradients_off(model: Any) -> Iterator[None]:
    """No parameter has gradients while this is open, unless it is given them; then all are as they were."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, learns in before.items():
            parameter.requires_grad_(learns)


@contextmanager
def _only_these_learn(model: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The named parameters, the only ones with gradients while this is open."""
    parameters = tensors_of(model, list(names))
    with keeping_gradients_off(model):
        try:
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            yield parameters
        finally:
            for parameter in parameters.values():
                parameter.grad = None


class _Run:
    """Weights under training: the model's own, their float32 masters, and the optimiser of these."""

    def __init__(
        self,
        model: Any,
        parameters: dict[str, Any],
        start: Mapping[str, Tensor],
        learning_rate: float,
        *,
        after_step: AfterStep | None,
        observe: Observer | None,
    ) -> None:
        self._model, self._parameters = model, parameters
        self._after_step, self._observe = after_step, observe
        self._before = {name: parameter.data for name, parameter in parameters.items()}
        self._masters = {
            name: start[name].to(weight.device, torch.float32, copy=True) if name in start else weight.float().clone()
            for name, weight in self._before.items()
        }
        self._adam = torch.optim.Adam(self._masters.values(), lr=learning_rate)
        self._show_masters()

    def step(self, batch: list[_Row]) -> float:
        """One step of Adam on a batch; its mean loss before the step."""
        with torch.enable_grad():
            loss = _loss(self._model, batch)
            if not torch.isfinite(loss):
                raise EditError(f"the loss became {float(loss.detach())}; lower the learning rate")
            loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in self._parameters.items():
            self._masters[name].grad, parameter.grad = parameter.grad.float(), None
        self._tell()
        self._adam.step()
        self._hold()
        self._show_masters()
        return float(loss.detach())

    def deltas(self) -> dict[str, Tensor]:
        """Weights now minus weights before; lets go of the masters one by one, so the run is over."""
        return {
            name: (self._masters.pop(name).double() - weight.double()).float().cpu()
            for name, weight in self._before.items()
        }

    def _tell(self) -> None:
        for name, master in self._masters.items():
            if self._observe and master.grad is not None:
                self._observe(name, master, master.grad)

    def _hold(self) -> None:
        for name, master in self._masters.items():
            master.grad = None
            if self._after_step:
                master.copy_(self._after_step(name, master, self._before[name].float()))

    def _show_masters(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = self._masters[name].to(parameter.dtype)


def _passes(
    run: _Run, encoded: Sequence[_Row], config: TrainingConfig, progress: Progress, stage: str
) -> Iterator[float]:
    """The mean loss of each pass over all pairs, until it is low enough."""
    generator = torch.Generator().manual_seed(config.seed)
    for number in range(config.steps):
        progress(stage, number, config.steps)
        order = torch.randperm(len(encoded), generator=generator).tolist()
        total = 0.0
        for start in range(0, len(order), config.batch_size):
            batch = [encoded[index] for index in order[start : start + config.batch_size]]
            total += run.step(batch) * len(batch)
        yield total / len(encoded)
        if total / len(encoded) < config.stop_loss:
            break
    progress(stage, config.steps, config.steps)


def _loss(model: Any, batch: list[_Row]) -> Tensor:
    """The mean over pairs of the mean NLL of the answer's tokens."""
    padded = pad([ids for ids, _ in batch], device=model.device)
    places = [(row, at) for row, (ids, start) in enumerate(batch) for at in range(max(start, 1), len(ids))]
    rows = torch.tensor([row for row, _ in places], device=model.device)
    columns = torch.tensor([at for _, at in places], device=model.device)
    weights = torch.tensor([1 / (len(batch[row][0]) - max(batch[row][1], 1)) for row, _ in places])
    logits_NV = logits_at(model, rows, columns - 1, use_cache=False, **padded.inputs())
    nll_N = torch.nn.functional.cross_entropy(logits_NV, padded.ids[rows, columns], reduction="none")
    return (nll_N * weights.to(nll_N)).sum() / len(batch)
