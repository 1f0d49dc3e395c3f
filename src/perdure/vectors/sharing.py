"""Function vectors that leave the house: one small signed file each, told of which model it is, without training data.

A file NAME.vector.safetensors holds the tensor `vector` and, in its header, `VectorHeader` as canonical JSON. A vector
and its header have exactly one file: whatever else decodes to the same is refused, so no byte of a file can be changed
unnoticed. Shape suffix: D hidden size.
"""

import json
import math
import os
import stat
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from torch import Tensor

from perdure.content import canonical_json, digest_bytes, tensor_bytes, write_atomic
from perdure.errors import IntegrityError, ModelError, RefusedError, SettingError, UnsafeFileError
from perdure.models.checkpoint import PICKLE_SUFFIXES
from perdure.models.tensor_files import Blank, encoded_header
from perdure.signing import fingerprint, is_signed, public_part, sign
from perdure.vectors.headers import Origin, VectorHeader

SUFFIX = ".vector.safetensors"
LARGEST = 64 << 20
"""A larger file, in bytes, is not read."""

_KEY = "perdure.vector"
_TENSOR = "vector"
_CONTEXT = b"perdure function vector 1\n"  # a signature of anything else is none of this
_LONGEST_HEADER = 1 << 20
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x93NUMPY")  # what pickle, torch.save and numpy write first


@dataclass(frozen=True)
class SharedVector:
    """A vector and all that stands beside it.

    Attributes:
        vector_D: The function vector, float32.
        header: What it is.
    """

    vector_D: Tensor
    header: VectorHeader

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        blank = Blank(torch.float32, tuple(self.vector_D.shape))
        text = canonical_json(self.header.model_dump(mode="json"))
        return encoded_header([(_TENSOR, blank)], {_KEY: text}) + bytes(tensor_bytes(self.vector_D))

    @property
    def digest(self) -> str:
        """The sha256 (hex) of its file."""
        return digest_bytes(self.data)

    @property
    def fingerprint(self) -> str | None:
        """Of the signer's key; None if it is not signed."""
        return None if self.header.key is None else fingerprint(self.header.key)

    @property
    def message(self) -> bytes:
        """What is signed: the header but the signature, and the sha256 of the numbers."""
        header = self.header.model_dump(mode="json", exclude={"signature"})
        return _CONTEXT + f"{canonical_json(header)}\n{digest_bytes(bytes(tensor_bytes(self.vector_D)))}".encode()

    def signed(self, key: Ed25519PrivateKey) -> "SharedVector":
        """The same, signed."""
        unsigned = self.header.model_copy(update={"key": public_part(key), "signature": None})
        signature = sign(key, SharedVector(self.vector_D, unsigned).message)
        return SharedVector(self.vector_D, unsigned.model_copy(update={"signature": signature}))


def describe(vector_D: Tensor, **about: Any) -> SharedVector:
    """A vector with its header, not signed yet.

    Args:
        vector_D: The vector, of any float dtype.
        about: The other fields of `VectorHeader`; its norm is added here.

    Raises:
        SettingError: A field that cannot be.
        ModelError: The vector does not have the model's hidden size, or is not finite.
    """
    plain_D = vector_D.detach().cpu().float().contiguous()
    if not torch.isfinite(plain_D).all():
        raise ModelError(f"the vector of {about.get('name')} holds NaN or infinite numbers and is not written")
    try:
        header = VectorHeader(norm=_norm(plain_D), **about)
    except ValidationError as error:
        raise SettingError(f"a vector's header: {_first(error)}") from error
    if tuple(plain_D.shape) != (header.model.hidden,):
        raise ModelError(
            f"the vector has shape {list(plain_D.shape)}; the model's hidden size is {header.model.hidden}"
        )
    return SharedVector(plain_D, header)


def write_vector(path: Path, shared: SharedVector) -> None:
    """Write a vector's file, whole or not at all.

    Raises:
        SettingError: The file is there, or is not called .safetensors.
    """
    check_new(path)
    write_atomic(path, shared.data)


def check_new(path: Path) -> None:
    """Refuse a path to which no vector's file can be written.

    Raises:
        SettingError: The file is there, or is not called .safetensors.
    """
    if path.suffix != ".safetensors":
        raise SettingError(f"{path.name}: a vector's file ends in .safetensors, usually {SUFFIX}")
    if path.exists() or path.is_symlink():
        raise SettingError(f"{path} exists; name a new file")


def read_vector(path: Path) -> SharedVector:
    """The vector in a file, its form, numbers and signature checked; whose signature it is, is not.

    Raises:
        UnsafeFileError: A pickle, something that is no plain file, or a file that is far too large.
        IntegrityError: Damaged, changed, not finite, or something else.
    """
    try:
        return _parsed(_bytes_of(path))
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error}") from error


def import_vector(
    path: Path,
    *,
    trusted: Collection[str],
    models: Sequence[Origin],
    allow_unsigned: bool = False,
    other_weights: bool = False,
) -> SharedVector:
    """The vector in a file, if it is whole, signed by somebody who is trusted, and of one of these models.

    Args:
        path: The file.
        trusted: Fingerprints of signers.
        models: The models it may belong to, of one architecture.
        allow_unsigned: Take a file that nobody signed.
        other_weights: Take a vector of another model of the same architecture, such as the base of a tuned child.

    Raises:
        UnsafeFileError: A pickle, something that is no plain file, or a file that is far too large.
        IntegrityError: Damaged, changed, not finite, or something else.
        RefusedError: Not signed, or signed by somebody who is not trusted.
        ModelError: Of another model.
    """
    shared = read_vector(path)
    check_signer(shared, trusted, allow_unsigned=allow_unsigned)
    check_model(shared, models, other_weights=other_weights)
    return shared


def check_signer(shared: SharedVector, trusted: Collection[str], *, allow_unsigned: bool = False) -> None:
    """Refuse a vector that nobody signed, or somebody who is not trusted.

    Raises:
        RefusedError: It is one of these; the message has the signer's whole fingerprint.
    """
    found = shared.fingerprint
    if found is None and not allow_unsigned:
        raise RefusedError(
            f"the vector of {shared.header.name!r} is not signed. Ask for a file that perdure vectors export wrote; "
            "in Python, allow_unsigned=True takes it"
        )
    if found is not None and found not in trusted:
        raise RefusedError(
            f"the vector of {shared.header.name!r} is signed by somebody who is not among the {len(trusted)} trusted "
            f"signers. Compare the fingerprint with what the signer sees (perdure vectors key), then: "
            f"perdure vectors trust {found}"
        )


def check_model(shared: SharedVector, models: Sequence[Origin], *, other_weights: bool = False) -> None:
    """Refuse a vector that belongs to none of these models.

    Raises:
        ModelError: Another architecture; or the same with other weights or another config, unless `other_weights`.
    """
    origin = shared.header.model
    if all(origin.structure != model.structure for model in models):
        raise ModelError(
            f"the vector is of another architecture: {_words(origin)}; the model here has {_words(models[0])}. "
            "A vector can be used in the architecture it was taken from only"
        )
    if other_weights or origin in models:
        return
    same = any(origin.weights == model.weights for model in models)
    what = "the same weights with another config" if same else "the same architecture with other weights"
    raise ModelError(
        f"the vector is of another model: {what} (weights {origin.weights[:12]}…, here "
        f"{', '.join(model.weights[:12] + '…' for model in models[:3])}). If it is to be tried here all the same, such "
        "as a base's vector in its tuned child: --other-weights (in Python other_weights=True)"
    )


def _words(origin: Origin) -> str:
    names = ("layers", "heads", "head size", "hidden size")
    return ", ".join(f"{name} {size}" for name, size in zip(names, origin.structure, strict=True))


def _bytes_of(path: Path) -> bytes:
    """The bytes of a plain file of allowed size; nothing is read of any other."""
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsafeFileError(_pickled(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe must not hang
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeFileError(f"{path} is no plain file")
            if status.st_size > LARGEST:
                raise UnsafeFileError(
                    f"{path} has {status.st_size:,} bytes; at most {LARGEST:,} are read, and a vector needs a few "
                    "thousand"
                )
            data = stream.read(LARGEST)
    except OSError as error:
        raise IntegrityError(f"it cannot be read: {error.strerror or error}") from error
    if data.startswith(_PICKLES) and data[8:9] != b"{":
        raise UnsafeFileError(_pickled(path))
    return data


def _pickled(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is opened, and is refused. "
        f"Ask for the {SUFFIX} file that perdure vectors export writes"
    )


def _parsed(data: bytes) -> SharedVector:
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise IntegrityError("it is cut off, or no file that perdure vectors export wrote")
    try:
        text = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
        header = VectorHeader.model_validate_json(text)
        vector_D = torch.frombuffer(bytearray(data[8 + length :]), dtype=torch.float32)
        shared = SharedVector(vector_D, header)
        whole = shared.data == data and tuple(vector_D.shape) == (header.model.hidden,)
    except ValidationError as error:
        raise IntegrityError(f"its header is malformed: {_first(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"it is damaged, or holds no vector of perdure: {error}") from error
    if not whole:
        raise IntegrityError("its bytes are not those that its header and numbers give; it was changed")
    _check_signature(shared)
    _check_numbers(shared)
    return shared


def _check_numbers(shared: SharedVector) -> None:
    if not torch.isfinite(shared.vector_D).all():
        raise IntegrityError("its vector holds NaN or infinite numbers")
    if not math.isclose(_norm(shared.vector_D), shared.header.norm, rel_tol=1e-9):
        raise IntegrityError("its vector does not have the norm that its header tells; it was changed")


def _check_signature(shared: SharedVector) -> None:
    key, signature = shared.header.key, shared.header.signature
    if key is not None and signature is not None and not is_signed(key, signature, shared.message):
        raise IntegrityError("its signature is wrong: header or vector were changed after it was signed")


def _norm(vector_D: Tensor) -> float:
    """The Euclidean norm, the same bits on every machine."""
    return math.sqrt(math.fsum(value * value for value in vector_D.double().tolist()))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'whole'}: {first['msg']}"
