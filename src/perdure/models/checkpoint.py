"""Checkpoint folders, opened with suspicion: safetensors only, every tensor accounted for and finite."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.errors import ModelError, UnsafeFileError

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".joblib"})
PROCESSOR_FILES = frozenset(
    {"preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json"}
)
TOKENIZER_FILES = frozenset({"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"})
SIDE_FILES = PROCESSOR_FILES | TOKENIZER_FILES | {
    "config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja",
}  # fmt: skip
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,  # counters beside the weights: steps of a batch norm, numbers of positions
}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies and what it is."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """An ordinary `from_pretrained` folder whose weights are safetensors.

    Attributes:
        folder: The folder.
        entries: From tensor name to where it lies; tied tensors are stored once.
    """

    folder: Path
    entries: Mapping[str, TensorEntry]

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """The checkpoint in `folder`, its file list and headers checked; no weight is read yet.

        Raises:
            UnsafeFileError: The weights come as pickles, or the model needs code from the folder.
            ModelError: No config, no weights, damaged headers, missing or doubled tensors.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            hint = "; it holds an adapter, which perdure init merges into its base" if adapter else ""
            raise ModelError(f"{folder} is no model folder: it has no config.json{hint}")
        _refuse_code(folder)
        entries: dict[str, TensorEntry] = {}
        for shard in _shards(folder):
            for name, entry in _read_header(shard).items():
                if name in entries:
                    raise ModelError(f"{name} is stored twice: in {entries[name].file.name} and {shard.name}")
                entries[name] = entry
        _check_index(folder, entries)
        return cls(folder, entries)

    @property
    def shards(self) -> tuple[Path, ...]:
        """The safetensors files, sorted."""
        return tuple(sorted({entry.file for entry in self.entries.values()}))

    @property
    def side_files(self) -> tuple[Path, ...]:
        """Config, tokenizer and template files, sorted; nothing else of the folder is ever used."""
        found = (path for path in self.folder.iterdir() if path.name in SIDE_FILES)
        return tuple(sorted(path for path in found if path.is_file()))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json."""
        loaded: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return loaded

    def tensor(self, name: str) -> Tensor:
        """One tensor, memory-mapped.

        Raises:
            ModelError: The file was cut off or changed since its header was read.
        """
        entry = self.entries[name]
        try:
            with safe_open(entry.file, framework="pt") as stream:
                tensor: Tensor = stream.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{name} cannot be read from {entry.file}: {error}") from error
        return tensor

    def check_finite(self) -> None:
        """Read every weight once and refuse NaN and infinity, which the libraries load in silence.

        Raises:
            ModelError: Names every tensor that holds NaN or infinity.
        """
        broken = [name for name in self.entries if not torch.isfinite(self.tensor(name)).all()]
        if broken:
            raise ModelError(
                f"{self.folder}: {len(broken)} tensors hold NaN or infinite numbers, "
                f"for example {', '.join(broken[:3])}. The checkpoint is damaged; fetch it again"
            )


def _refuse_code(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / 'config.json'} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} must hold one JSON object")
    if "auto_map" in config:
        raise UnsafeFileError(
            f"{folder} asks to run its own Python code (config.json has auto_map). "
            "perdure runs no code from model folders; use a model class that transformers carries"
        )


def _shards(folder: Path) -> list[Path]:
    whole, parts = folder / "model.safetensors", sorted(folder.glob("model-*-of-*.safetensors"))
    shards = [whole] if whole.is_file() else parts or sorted(folder.glob("*.safetensors"))
    if shards:
        return shards
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnsafeFileError(
            f"{folder} keeps its weights in {', '.join(pickles[:3])}: pickled files can run code when they "
            "are opened and are refused. Convert them with save_pretrained(..., safe_serialization=True)"
        )
    raise ModelError(f"{folder} holds no .safetensors file")


def _read_header(shard: Path) -> dict[str, TensorEntry]:
    try:
        with safe_open(shard, framework="pt") as stream:
            slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{shard} is damaged or no safetensors file: {error}") from error
    entries = {}
    for name, (dtype, shape) in found.items():
        if dtype not in _DTYPES:
            raise ModelError(
                f"{name} in {shard.name} has dtype {dtype}: quantised weights cannot be edited. "
                f"Allowed: {', '.join(_DTYPES)}; de-quantise the model first"
            )
        entries[name] = TensorEntry(shard, _DTYPES[dtype], shape)
    return entries


def _check_index(folder: Path, entries: Mapping[str, TensorEntry]) -> None:
    index = folder / INDEX
    if not index.is_file():
        return
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        wrong = [name for name, file in listed.items() if name not in entries or entries[name].file.name != file]
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{index} is damaged: {error}") from error
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} tensors that {INDEX} lists are missing or in another shard, "
            f"for example {', '.join(wrong[:3])}"
        )
