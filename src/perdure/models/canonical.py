"""Checkpoints under the names of the running model, one tensor for each; written from live models where need be."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from perdure.errors import ModelError
from perdure.models.adapters import plain_view
from perdure.models.checkpoint import PROCESSOR_FILES, Checkpoint
from perdure.models.classes import blank_model
from perdure.models.loading import build, load_generation_config, load_tokenizer
from perdure.models.tensor_files import Blank, write_tensors


@contextmanager
def canonical(checkpoint: Checkpoint, beside: Path) -> Iterator[Checkpoint]:
    """The checkpoint, if its tensor names are those of the model class; else a copy under those names, while open.

    Deltas name tensors as the running model does; some classes are stored under other names. Names and shapes
    are compared without weights; only where they differ is the model built.

    Args:
        checkpoint: What was given.
        beside: A folder where a copy may lie for the time being.

    Raises:
        ModelError: The model cannot be built, or not from the copy.
    """
    if fits(checkpoint):
        yield checkpoint
        return
    model, tokenizer = build(checkpoint.folder, {name: checkpoint.tensor(name) for name in checkpoint.entries})
    if set(checkpoint.entries) <= set(model.state_dict()):
        yield checkpoint
        return
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".perdure-") as scratch:
        save_model(model, tokenizer, Path(scratch))
        copy = _with_processor(Path(scratch), checkpoint)
        if not fits(copy):
            raise ModelError(f"{type(model).__name__} cannot be stored under the names of its own tensors")
        yield copy


def _with_processor(folder: Path, original: Checkpoint) -> Checkpoint:
    """The checkpoint in a folder, with those files of the original that say how images are read."""
    for file in original.side_files:
        if file.name in PROCESSOR_FILES:
            shutil.copyfile(file, folder / file.name)
    return Checkpoint.open(folder)


def fits(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint holds every tensor of its model class, in its shape, and no other; no weight is read.

    Of tied tensors one is enough.

    Raises:
        ModelError: The config, the tokenizer or the end tokens are not understood.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        load_tokenizer(checkpoint.folder, config)
        load_generation_config(checkpoint.folder)
        model = blank_model(config, checkpoint.entries)
    except (ValueError, OSError, KeyError, RuntimeError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The model in {checkpoint.folder} cannot be built: {error}") from error
    tied: dict[int, set[str]] = {}
    shapes = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        tied.setdefault(id(tensor), set()).add(name)
        shapes[name] = tuple(tensor.shape)
    found = {name: entry.shape for name, entry in checkpoint.entries.items()}
    return found.items() <= shapes.items() and all(names & found.keys() for names in tied.values())


def save_model(model: Any, tokenizer: Any, folder: Path) -> Checkpoint:
    """A live model as a checkpoint in an existing folder, as its plain view: adapters merged, the base's names.

    Raises:
        ModelError: The adapter cannot be merged.
    """
    with plain_view(model) as plain:
        state = plain.state_dict(keep_vars=True)
        names = {id(tensor): name for name, tensor in reversed(state.items())}  # tied tensors are stored once
        kept = {name: state[name].detach() for name in names.values()}
        blanks = {name: Blank(tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
        write_tensors(folder / "model.safetensors", blanks, kept.__getitem__, metadata={"format": "pt"})
        plain.config.save_pretrained(folder)
        for part in (getattr(plain, "generation_config", None), tokenizer):  # an encoder may have neither
            if part is not None:
                part.save_pretrained(folder)
    return Checkpoint.open(folder)
