"""The manifest: everything that makes a version what it is, as one canonical JSON text; its hash is the id.

It holds no time and no person, so the same edit of the same parent has the same id.
"""

import importlib.metadata
import math
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import canonical_json
from perdure.errors import IntegrityError, UnsafeFileError
from perdure.models.checkpoint import SIDE_FILES

_HASH = r"^[0-9a-f]{64}$"
# A pool of adapters: its router, and the two files of each version of each group's adapter.
_POOL = re.compile(r"pool\.(router\.json|g[1-9][0-9]{0,5}\.[0-9a-f]{16}\.adapter_(config\.json|model\.safetensors))")
# A head of an encoder, one for each labelled set that it learnt.
_HEAD = re.compile(r"head\.[0-9a-f]{16}\.safetensors")
_LIBRARIES = ("perdure", "torch", "transformers", "safetensors", "numpy")


class TensorRecord(BaseModel):
    """What a tensor must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash: str = Field(pattern=_HASH, description="sha256 over dtype, shape and bytes")
    dtype: Literal["float64", "float32", "float16", "bfloat16", "int64"] = Field(description="the numbers' type")
    shape: tuple[int, ...] = Field(description="sizes, outermost first")

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return self.numbers * {"float64": 8, "int64": 8, "float32": 4}.get(self.dtype, 2)

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Manifest(BaseModel):
    """The contents of one version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    tensors: dict[str, TensorRecord] = Field(description="every tensor of the model by its name")
    files: dict[str, str] = Field(description="config, tokenizer, template, pool files and heads: name to sha256")
    parents: tuple[str, ...] = Field(description="the ids of the versions that this was made from")
    solved: str | None = Field(default=None, description="hash of the delta solved before restraint, with keys")
    recipe: dict[str, Any] = Field(description="how it was made: editor, resolved config, facts, seeds, data")
    libraries: dict[str, str] = Field(description="the versions of what computed it")

    def to_bytes(self) -> bytes:
        """The canonical JSON; its sha256 is the version's id."""
        return canonical_json(self.model_dump(mode="json")).encode()

    @property
    def nbytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(record.nbytes for record in self.tensors.values())


def read_manifest(data: bytes) -> Manifest:
    """The manifest that the bytes say.

    Raises:
        IntegrityError: They are no manifest.
        UnsafeFileError: It names a file that does not belong in a model folder.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(f"the manifest is malformed at {first['loc']}: {first['msg']}") from error
    check_file_names(manifest.files)
    return manifest


def is_pool_file(name: str) -> bool:
    """Whether a file belongs to the version's pool of adapters, by its name."""
    return _POOL.fullmatch(name) is not None


def is_head_file(name: str) -> bool:
    """Whether a file is a head of an encoder, by its name."""
    return _HEAD.fullmatch(name) is not None


def is_side_file(name: str) -> bool:
    """Whether a file belongs beside the weights in a model folder, by its name: no part of a pool, and no head."""
    return not (is_pool_file(name) or is_head_file(name))


def check_file_names(names: Iterable[str]) -> None:
    """Refuse every file that is not one of the known side files of a model, of a pool or a head, by name.

    Raises:
        UnsafeFileError: A name outside the list; paths such as "../x" are never in it.
    """
    for name in names:
        if name not in SIDE_FILES and is_side_file(name):
            raise UnsafeFileError(
                f"the file name {name!r} does not belong in a model folder; allowed: {', '.join(sorted(SIDE_FILES))}"
            )


def library_versions() -> dict[str, str]:
    """The versions of the libraries that the numbers depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
