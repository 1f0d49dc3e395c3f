"""What a workspace can start from, as a checkpoint under the running model's names."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.deltas.adapter_files import is_adapter, read_adapter
from perdure.deltas.streaming import apply_to_folder
from perdure.errors import SettingError
from perdure.models import Checkpoint, resolve
from perdure.models.adapters import adapters_of
from perdure.models.canonical import canonical, save_model
from perdure.progress import Progress


@contextmanager
def base_checkpoint(
    source: Any, tokenizer: Any, beside: Path, *, progress: Progress
) -> Iterator[tuple[Checkpoint, str]]:
    """The checkpoint to start from, and where it came from in words; what is made on the way lies there while open.

    Args:
        source: A catalogue name, a folder, a GGUF file, a hub id, a folder with a LoRA adapter, or a live model.
        tokenizer: The live model's tokenizer.
        beside: A folder where copies may lie for the time being.
        progress: Told how far a merge is.

    Raises:
        ModelError: The model or its adapter cannot be read, or not as plain weights.
        SettingError: A live model without its tokenizer.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".perdure-") as scratch:
        given, words = _opened(source, tokenizer, Path(scratch), progress)
        with canonical(given, beside) as checkpoint:
            yield checkpoint, words


def _opened(source: Any, tokenizer: Any, scratch: Path, progress: Progress) -> tuple[Checkpoint, str]:
    if not isinstance(source, (str, Path)):
        return _saved(source, tokenizer, scratch)
    folder = resolve(source)
    if not is_adapter(folder):
        return Checkpoint.open(folder), _told(source)
    base, delta = read_adapter(folder)
    apply_to_folder(resolve(base), delta, scratch / "merged", progress=progress)
    return Checkpoint.open(scratch / "merged"), f"{_told(base)} with the adapter {_told(source)} merged in"


def _saved(model: Any, tokenizer: Any, scratch: Path) -> tuple[Checkpoint, str]:
    if tokenizer is None:
        raise SettingError("a workspace of a live model needs its tokenizer: init(folder, model, tokenizer=...)")
    adapters = adapters_of(model)
    merged = f" with the adapters {', '.join(adapters)} merged in" if adapters else ""
    name = _told(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return save_model(model, tokenizer, scratch), f"{name}, as it was in memory{merged}"


def _told(source: str | Path) -> str:
    """What is told of a source: a local one by its own name alone, since reports and cards leave the house."""
    path = Path(source)
    return path.resolve().name if path.is_absolute() or path.exists() else str(source)
