"""Ed25519 keys as files, fingerprints of signers, signatures.

Bernstein et al., "High-speed high-security signatures", 2012; RFC 8032. A signature depends on the key and the message
alone: what is signed twice has the same bytes.
"""

import os
import stat
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from perdure.content import atomic_path
from perdure.errors import IntegrityError, SettingError, UnsafeFileError

_LARGEST = 1 << 14
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def new_key(path: Path) -> Ed25519PrivateKey:
    """A new private key, written to the PEM file `path`, which only its owner may read.

    Raises:
        SettingError: The file is there; a key is never replaced.
    """
    if path.exists() or path.is_symlink():
        raise SettingError(f"{path} exists, and a key is never replaced; name a new file")
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with atomic_path(path) as scratch:
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
        UnsafeFileError: Others may read the file, or it is a link.
        IntegrityError: It cannot be read, or holds no Ed25519 key.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode) or mode & _OTHERS:
                raise UnsafeFileError(f"{path} may be used by others than its owner; run chmod 600 on it")
            key = load_pem_private_key(stream.read(_LARGEST), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, UnsafeFileError):
            raise
        raise IntegrityError(f"{path} is no private key that can be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IntegrityError(f"{path} holds a key of another kind; Ed25519 is used here")
    return key


def public_part(key: Ed25519PrivateKey) -> str:
    """The raw public key, 64 hex digits: what may be given to everybody."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public key as the PEM text that other tools read."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def parse_public(pem: bytes) -> str:
    """The raw public key, 64 hex digits, in a PEM text.

    Raises:
        IntegrityError: It holds no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(pem[:_LARGEST])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IntegrityError(f"no public key that can be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise IntegrityError("a public key of another kind; Ed25519 is used here")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def fingerprint(public: str) -> str:
    """The sha256 (hex) of a raw public key: the name by which a signer is trusted."""
    return sha256(bytes.fromhex(public)).hexdigest()


def short(found: str) -> str:
    """The first 16 digits of a fingerprint in fours, for people; too few to trust a signer by."""
    return " ".join(found[place : place + 4] for place in range(0, 16, 4))


def checked_fingerprint(given: str) -> str:
    """A whole fingerprint; spaces and capitals in it do not matter.

    Raises:
        SettingError: It is anything else, for instance its short form.
    """
    found = "".join(given.split()).lower()
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise SettingError(
            f"a fingerprint has 64 hexadecimal digits; given {given!r}. The signer sees the whole one with "
            "perdure vectors key"
        )
    return found


def sign(key: Ed25519PrivateKey, message: bytes) -> str:
    """The signature of a message, 128 hex digits."""
    return key.sign(message).hex()


def is_signed(public: str, signature: str, message: bytes) -> bool:
    """Whether the holder of the private key to `public` signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
