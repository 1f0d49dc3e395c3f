"""The change of one version as a file of its own: what turns the base's tensors into the version's, bit for bit.

A version is a chain of sums, each rounded to the weights' dtype, so its change is kept as that chain: low-rank
factors in their order, or the new tensor where there are none. With it stand the hashes of both ends.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.content import atomic_path, canonical_json
from perdure.deltas.delta import Change, LowRank, changed
from perdure.errors import IntegrityError
from perdure.models.tensor_files import Blank, pieces, places, write_tensors

_KEY = "perdure.exported"  # a single metadata key: the header's bytes are then the same on every run
_HASH = r"^[0-9a-f]{64}$"

Rows = Callable[[Tensor, int], Tensor]
"""From rows of a tensor (as a matrix) and the number of the first one to what they become."""


class BaseTensor(BaseModel):
    """What a tensor of the base is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash: str = Field(pattern=_HASH, description="sha256 over dtype, shape and bytes")
    dtype: Literal["float64", "float32", "float16", "bfloat16", "int64"] = Field(description="the numbers' type")
    shape: tuple[int, ...] = Field(description="sizes, outermost first")


class TensorChange(BaseModel):
    """How one tensor of the base becomes the version's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=0, description="low-rank sums one after another; 0: the new tensor stands in the file")
    hash: str = Field(pattern=_HASH, description="sha256 of the version's tensor")


class Contents(BaseModel):
    """The header of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base: dict[str, BaseTensor] = Field(description="every tensor of the base by its name")
    changes: dict[str, TensorChange] = Field(description="the tensors that change")
    notes: dict[str, Any] = Field(default_factory=dict, description="ids of the version and of its base")


class ExportedDelta:
    """An exported change, opened; its numbers stay on disk until they are asked for.

    Attributes:
        path: The file.
        contents: What stands in its header.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self.contents = contents

    @classmethod
    def open(cls, path: Path) -> "ExportedDelta":
        """The exported change in a file.

        Raises:
            IntegrityError: The file is missing, cut off, or something else.
        """
        try:
            with safe_open(path, framework="pt") as stream:
                header = (stream.metadata() or {})[_KEY]
                held = set(stream.keys())
            contents = Contents.model_validate_json(header)
        except (OSError, SafetensorError, KeyError, ValidationError) as error:
            raise IntegrityError(
                f"{path} is no exported delta ({error}). Write one with perdure export VERSION FILE --delta"
            ) from error
        wanted = {part for name, change in contents.changes.items() for part in _parts(name, change.steps)}
        if held != wanted or not contents.changes.keys() <= contents.base.keys():
            raise IntegrityError(f"{path} is a damaged exported delta: its tensors are not those of its header")
        return cls(path, contents)

    def rows(self, name: str) -> Rows:
        """How rows of the base's tensor `name` become the version's; its factors are read now.

        Raises:
            IntegrityError: The factors do not fit the tensor, or hold NaN.
        """
        steps = self.contents.changes[name].steps
        if not steps:
            return self._replaced(name)
        pairs = [(self._read(f"left/{step}/{name}"), self._read(f"right/{step}/{name}")) for step in range(steps)]
        shape = self.contents.base[name].shape
        try:
            changes = [Change(LowRank(left, right)) for left, right in pairs]
        except ValueError as error:
            raise IntegrityError(f"{self.path}, {name}: {error}") from error
        if any(tuple(change.shape) != shape for change in changes):
            raise IntegrityError(f"{self.path}: the factors of {name} do not fit its shape {list(shape)}")
        return lambda weight, start: _added(weight, start, changes)

    def _replaced(self, name: str) -> Rows:
        place = next(place for place in places(self.path) if place.name == f"value/{name}")

        def read(weight: Tensor, start: int) -> Tensor:
            first = place.start + start * weight.shape[1] * weight.element_size()
            with self.path.open("rb") as stream:
                stream.seek(first)
                piece = b"".join(pieces(stream, weight.nbytes))
            return torch.frombuffer(bytearray(piece), dtype=weight.dtype).view(weight.shape)

        return read

    def _read(self, part: str) -> Tensor:
        with safe_open(self.path, framework="pt") as stream:
            tensor: Tensor = stream.get_tensor(part)
        if not torch.isfinite(tensor).all():
            raise IntegrityError(f"{self.path}: {part} holds NaN or infinite numbers")
        return tensor


def _added(weight: Tensor, start: int, changes: Sequence[Change]) -> Tensor:
    for change in changes:
        weight = changed(weight, change.rows(start, start + len(weight)))
    return weight


def _parts(name: str, steps: int) -> list[str]:
    """The tensors of the file that hold the change of a tensor."""
    factors = [f"{side}/{step}/{name}" for step in range(steps) for side in ("left", "right")]
    return factors or [f"value/{name}"]


def write_exported(
    path: Path,
    contents: Contents,
    blanks: Mapping[str, Sequence[Blank]],
    read: Callable[[str, int], Tensor],
) -> None:
    """Write an exported change, atomically, with one of its tensors in memory at a time.

    Args:
        path: The file.
        contents: Its header.
        blanks: For each changed tensor what its parts will be: left and right factor of each step, or the value.
        read: Gives a part by the tensor's name and its place among the parts.
    """
    places = {
        part: (name, place)
        for name, change in contents.changes.items()
        for place, part in enumerate(_parts(name, change.steps))
    }
    header = canonical_json(contents.model_dump(mode="json"))
    with atomic_path(path) as scratch:
        write_tensors(
            scratch,
            {part: blanks[name][place] for part, (name, place) in places.items()},
            lambda part: read(*places[part]),
            metadata={_KEY: header},
        )
