"""One transformers Trainer: the task's loss plus weighted penalties."""

import math
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from perdure.errors import TuneError
from perdure.progress import Progress
from perdure.tuning import processes
from perdure.tuning.config import TrainingConfig
from perdure.tuning.forward import Taps
from perdure.tuning.regularizer import Regularizer, Run


@dataclass(frozen=True)
class Term:
    """A regularizer at work."""

    name: str
    weight: float
    regularizer: Regularizer


class Numbers(Dataset[int]):
    """The numbers of rows, drawn by the Trainer; the rows themselves are put together in `Run.packed`."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]


class AnchorsBeside(TrainerCallback):  # type: ignore[misc]
    """Puts anchors beside the rows of every batch of a training: all in turn, each pass in an order of its own.

    Which ones depends on the seed and on how many batches all processes had before, not on the rows: a training that
    is taken up again goes on in the turn, and each process has others.
    """

    def __init__(self, run: Run, count: int, seed: int) -> None:
        """A turn that starts anew.

        Args:
            run: Its anchors are its last rows.
            count: How many stand beside each batch.
            seed: Of the orders.
        """
        self._run, self._count, self._seed = run, count, seed
        self._anchors = [number for number, anchor in enumerate(run.anchors) if anchor]
        self._batches = 0

    def __call__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The batch; rows that only watch the training stand alone."""
        if max(numbers) >= len(self._run.anchors):
            return self._run.packed(numbers)
        start = (self._batches * processes.count() + processes.rank()) * self._count
        self._batches += 1
        return self._run.packed([*numbers, *map(self._anchor, range(start, start + self._count))])

    def on_train_begin(self, args: Any, state: Any, _control: Any, train_dataloader: Any, **_more: Any) -> None:
        """Go on in the turn where the training is taken up."""
        steps = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        epochs, more = divmod(state.global_step, steps)
        self._batches = epochs * len(train_dataloader) + more * args.gradient_accumulation_steps

    def _anchor(self, place: int) -> int:
        """The anchor at a place of the endless turn."""
        passes, at = divmod(place, len(self._anchors))
        drawn = random.Random(f"anchors {self._seed} {passes}")
        return drawn.sample(self._anchors, len(self._anchors))[at]


class TaskTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean NLL of learnt tokens, or of items, plus Σ weight · penalty.

    Penalties are means over rows or tokens of a batch; with gradient accumulation and data parallel they are averaged.
    Each is logged as `regularizer/<name>`, before its weight.
    """

    def __init__(
        self,
        run: Run,
        args: TrainingArguments,
        terms: Sequence[Term],
        *,
        held: int = 0,
        beside: int = 0,
        **more: Any,
    ) -> None:
        """A Trainer of a run's network.

        Args:
            run: The task.
            args: The Trainer's own settings.
            terms: The regularizers, prepared.
            held: How many rows follow those of the run, and watch the training.
            beside: How many anchors stand beside the rows of each batch, the run's anchors being its last rows. An
                epoch is the other rows once.
            more: Further arguments of the Trainer.
        """
        self._run, self._terms = run, list(terms)
        self._taps: Taps = {key: tap for term in terms for key, tap in term.regularizer.taps(run.model).items()}
        self._sums: dict[str, tuple[float, int]] = {}
        rows = len(run.anchors)
        anchors = AnchorsBeside(run, beside, args.seed) if beside else None
        super().__init__(
            model=run.model,
            args=args,
            train_dataset=Numbers(range(rows - sum(run.anchors))),
            eval_dataset=Numbers(range(rows, rows + held)) if held else None,
            data_collator=anchors or run.packed,
            **more,
        )
        self.model_accepts_loss_kwargs = True  # the number of learnt tokens of all accumulated batches is wanted
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)
        if anchors is not None:
            self.add_callback(anchors)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean NLL of the task's tokens or items over all accumulated batches, and in training the penalties.

        Raises:
            TuneError: The loss is not a number.
        """
        training = model.training
        seen = self._run.forward(model, self._run.unpacked(inputs), self._taps if training else None)
        task_N = ~seen.batch.anchor_B[seen.rows_N]
        total = (seen.losses() * task_N).sum()
        count = task_N.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / max(float(count), 1.0)
        if training:
            loss = loss * self._copies() + self._penalties(seen) / self.current_gradient_accumulation_steps
            if not torch.isfinite(loss):
                raise TuneError(
                    f"the loss became {float(loss.detach())} at step {self.state.global_step + 1}; lower learning_rate "
                    f"(now {self.args.learning_rate:g}) or the weights of the regularizers. Nothing was stored"
                )
        return (loss, {}) if return_outputs else loss

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        """Nothing to put off: sharded weights have no gradients, and those of adapters are averaged with the last."""
        return nullcontext()

    def _copies(self) -> int:
        """Processes whose gradients are averaged: tokens are counted over all of them."""
        return int(self.accelerator.num_processes) if self.args.average_tokens_across_devices else 1

    def _penalties(self, seen: Any) -> Tensor | float:
        total: Tensor | float = 0.0
        for term in self._terms:
            penalty = term.regularizer.penalty(seen)
            before, count = self._sums.get(term.name, (0.0, 0))
            self._sums[term.name] = (before + float(penalty.detach()), count + 1)
            total = total + term.weight * penalty
        return total

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The weights alone; peft would ask the hub whether the vocabulary grew, and a pickle of settings is no use."""
        if not isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = output_dir or str(self.args.output_dir)
            self.model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)

    def figures(self) -> list[dict[str, float]]:
        """What was logged on the way: losses, penalties, learning rate."""
        kept = ("loss", "eval_loss", "grad_norm", "learning_rate", "epoch", "step")
        return [
            {key: value for key, value in entry.items() if key in kept or key.startswith("regularizer/")}
            for entry in self.state.log_history
            if "loss" in entry or "eval_loss" in entry
        ]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's figures and the penalties since the last time."""
        if "loss" in logs:
            for name, (total, count) in self._sums.items():
                mean = torch.tensor(total / count, dtype=torch.float64, device=self.args.device)
                logs[f"regularizer/{name}"] = float(self.accelerator.reduce(mean, "mean"))
            self._sums = {}
        super().log(logs, *args, **kwargs)


class Telling(TrainerCallback):  # type: ignore[misc]
    """Tells how far the training is."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress, self._stage = progress, stage

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """The start, or where the work is taken up."""
        self._progress(self._stage, state.global_step, state.max_steps)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """One step more."""
        self._progress(self._stage, state.global_step, state.max_steps)


def arguments(
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    rows: int,
    *,
    watching: bool = False,
    kept: bool = False,
    checkpointing: bool = False,
) -> TrainingArguments:
    """The Trainer's own settings.

    Args:
        config: The settings of the tuning.
        folder: Where checkpoints lie.
        device: Where the model is.
        rows: How many rows are trained on.
        watching: Whether the best epoch by the held-out rows is kept.
        kept: Whether the folder outlives the training, so that checkpoints are worth their time.
        checkpointing: Whether activations are computed again on the way back.
    """
    steps = min(math.ceil(rows / (config.batch_size * config.accumulation)), config.max_steps or 10)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    saving = {"save_strategy": "epoch" if watching else "steps" if kept else "no", "save_steps": config.save_every}
    less_memory = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size // processes.count(),
        per_device_eval_batch_size=config.batch_size // processes.count(),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=device.type == "cpu",
        logging_steps=max(1, min(10, steps)),
        logging_nan_inf_filter=False,
        save_total_limit=2,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        eval_strategy="epoch" if watching else "no",
        **saving,
        **(best if watching else {}),
        **(less_memory if checkpointing else {}),
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process trains on one device; more are torchrun's affair
    return arguments
