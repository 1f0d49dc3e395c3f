"""What a model and this machine are like for training: sizes, memory at hand, and the time of a few steps."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from perdure.measuring.tuning_costs import Shape
from perdure.models import layout_of
from perdure.models.adapters import bare
from perdure.models.layout import tensors_of
from perdure.progress import Progress, silent
from perdure.requests.tasks import Task
from perdure.tuning.anchors import anchor_rows
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import Row
from perdure.tuning.preparing import is_out_of_memory, prepared_terms
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.run import attached, pairs_of, target_modules
from perdure.tuning.token_run import TokenRun
from perdure.tuning.trainer import Term

_STEPS = 2  # timed; the faster one counts, for nothing makes a step faster than it is
_CPU_TOKENS = 512


@dataclass(frozen=True)
class Probed:
    """What was measured.

    Attributes:
        rows: Rows of the batch.
        tokens: Its tokens with padding.
        seconds: Of a plain step.
        terms: Of a step with this regularizer alone.
    """

    rows: int
    tokens: int
    seconds: float
    terms: Mapping[str, float]

    def share(self, name: str) -> float:
        """What a regularizer adds to a plain step, as a share of it; not below zero."""
        return max(0.0, self.terms[name] / self.seconds - 1)


def probe_tuning(
    model: Any,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    config: TuningConfig,
    around: Surroundings,
    *,
    progress: Progress = silent,
) -> Probed | None:
    """How long steps take on a batch of a task's rows; None where memory does not hold it.

    On a CPU the batch has 512 tokens or one row: there the time a token hardly depends on the size.

    Args:
        model: The model, as it is before the task.
        tokenizer: Its tokenizer.
        task: The task.
        rows: Its rows to learn.
        config: The settings; where they ask for anchors, one row is general text.
        around: What the tuning stands on.
        progress: Told how many steps are done.
    """
    most = _CPU_TOKENS if bare(model).device.type == "cpu" else None
    chosen = typical_batch(rows, config.batch_size, most)
    beside = config.beside(len(chosen), config.anchors)
    chosen += anchor_rows(model, tokenizer, beside, "passages")  # as long as what a model would write
    around = replace(around, cache=None)  # targets of so few rows are of no use later
    try:
        with torch.random.fork_rng(devices=[]), attached(model, config) as (network, trained):
            run = TokenRun(network, tokenizer, chosen, pairs_of(task.train), trained, around)
            return _timed(run, prepared_terms(config, run), config, progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def typical_batch(rows: Sequence[Row], size: int, most_tokens: int | None) -> list[Row]:
    """At most `size` rows, evenly spaced from the shortest to the longest; fewer where padded tokens are limited."""
    order = sorted(rows, key=lambda row: len(row.ids))
    for count in range(min(size, len(order)), 0, -1):
        chosen = [order[(2 * place + 1) * len(order) // (2 * count)] for place in range(count)]
        if count == 1 or most_tokens is None or count * len(chosen[-1].ids) <= most_tokens:
            return chosen
    return []


def _timed(run: TokenRun, terms: Sequence[Term], config: TuningConfig, progress: Progress) -> Probed:
    if config.gradient_checkpointing:
        run.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    run.model.train()
    optimizer = torch.optim.AdamW(run.trained.parameters(), lr=config.learning_rate)
    plans: list[list[Term]] = [[], [], *([term] for term in terms)]  # the first step of all is slower than others
    seconds = []
    for place, plan in enumerate(plans):
        progress("two training steps", place, len(plans))
        seconds.append(min(_step(run, plan, optimizer) for _ in range(_STEPS)))
    progress("two training steps", len(plans), len(plans))
    padded = max(len(row.ids) for row in run.rows) * len(run.rows)
    named = {term.name: taken for term, taken in zip(terms, seconds[2:], strict=True)}
    return Probed(len(run.rows), padded, seconds[1], named)


def _step(run: TokenRun, terms: Sequence[Term], optimizer: torch.optim.Optimizer) -> float:
    """The seconds of one step."""
    device = bare(run.model).device
    _wait(device)
    started = time.perf_counter()
    taps = {key: tap for term in terms for key, tap in term.regularizer.taps(run.model).items()}
    seen = run.forward(run.model, run.batch(range(len(run.rows))), taps)
    loss = seen.losses().mean()
    for term in terms:
        loss = loss + term.weight * term.regularizer.penalty(seen)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    """An accelerator works on after a call comes back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shape_of(model: Any, config: TuningConfig) -> Shape:
    """The sizes of a model, with the matrices that the settings train."""
    layout = layout_of(model)
    names = [f"{name}.weight" for name in target_modules(model, config.targets)]
    weights = list(model.parameters())
    output = model.get_output_embeddings().weight
    matrices = [tuple(tensor.shape) for tensor in tensors_of(model, names).values()]
    return Shape(
        weights=sum(weight.numel() for weight in weights),
        layers=len(layout),
        width=layout.d_model,
        inner=layout.d_ff,
        heads=layout.heads,
        kv_heads=layout.kv_heads,
        head_dim=layout.head_dim,
        vocabulary=int(output.shape[0]),
        matrices=tuple((int(rows), int(columns)) for rows, columns in matrices),
        bytes_per_weight=weights[0].element_size(),
    )


def memory_at_hand(model: Any) -> int:
    """Bytes that a training may take where the model is: what is free, and what the model takes already."""
    own: int = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if model.device.type == "cuda":
        return int(torch.cuda.mem_get_info(model.device)[0]) + own
    import psutil

    return int(psutil.virtual_memory().available) + own
