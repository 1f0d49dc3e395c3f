"""Around every training: prepared regularizers, its folder and checkpoints, its time, and memory that runs out."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from perdure.errors import TuneError
from perdure.registry import regularizers
from perdure.tuning import processes
from perdure.tuning.config import TrainingConfig
from perdure.tuning.regularizer import Run
from perdure.tuning.trainer import Term

_STATE = "trainer_state.json"  # what a Trainer goes on from


class Clock:
    """CPU seconds of all threads, part by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.process_time()

    def stop(self, part: str) -> None:
        """The part that ended now."""
        now = time.process_time()
        self.parts[part], self._last = round(now - self._last, 3), now


def prepared_terms(config: TrainingConfig, run: Run) -> list[Term]:
    """The regularizers, prepared while the model is still what it was."""
    terms = []
    run.model.eval()
    for name, settings in config.terms():
        regularizer = regularizers.get(name).call(settings)
        regularizer.prepare(run)
        terms.append(Term(name, settings.weight, regularizer))
    return terms


@contextmanager
def working_folder(work: Path | None) -> Iterator[Path]:
    """The folder of checkpoints while open: the one given, or one that goes away."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with TemporaryDirectory(prefix="perdure-tune-") as scratch:
        yield Path(processes.agreed(scratch))


def last_checkpoint(folder: Path, last: str) -> str | None:
    """The last checkpoint that was written to its end: an interruption may have left half of a later one.

    Args:
        folder: Of the checkpoints.
        last: The file that is written last.
    """
    whole = [file.parent for file in folder.glob(f"checkpoint-*/{last}") if _is_whole(file.parent / _STATE)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _is_whole(file: Path) -> bool:
    """Whether a file of JSON was written to its end."""
    try:
        return bool(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return False


@contextmanager
def telling_memory(config: TrainingConfig) -> Iterator[None]:
    """Running out of memory is told with what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        half = max(1, config.batch_size // 2)
        own = {"gradient_checkpointing": "gradient_checkpointing=true", "max_tokens": "a smaller max_tokens"}
        known = [said for name, said in own.items() if name in type(config).model_fields]
        less = ", or ".join(known or ["method=lora"])
        raise TuneError(
            f"memory ran out with batch_size={config.batch_size}: take batch_size={half} with "
            f"accumulation={math.ceil(config.accumulation * config.batch_size / half)} (the same steps), "
            f"{less}. Nothing was stored"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, a GPU's or the machine's: of the latter torch says so in the words of a RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
