"""The files of a pack, read as what they are: from a stranger. Nothing is unpacked to disk.

Refused with the cause: links and special files, names that leave the pack or are not among a pack's, a name twice,
encrypted or oddly compressed entries, and more bytes than a pack may have, whatever the headers say.
"""

import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from perdure.errors import IntegrityError, UnsafeFileError

LARGEST = 256 << 20
"""More bytes in all are not read."""

MANIFEST, SIGNATURE = "manifest.json", "manifest.dsse.json"

_MOST = 20_000  # files
_VERSIONS = "versions"
_NAME = re.compile(rf"(?:{_VERSIONS}/)?[A-Za-z0-9][A-Za-z0-9._-]{{0,80}}")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a pack by name, from a folder or a zip file.

    Raises:
        UnsafeFileError: Something in it could leave the pack, fill the disk or the memory, or is no plain file.
        IntegrityError: It cannot be read, or is damaged.
    """
    try:
        found = dict(_of_folder(path) if path.is_dir() else _of_zip(path))
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror or error}") from error
    if MANIFEST not in found:
        raise IntegrityError(
            f"{path} has no {MANIFEST}, so it is no evidence pack. Write one with perdure export --evidence VERSION"
        )
    return found


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    left = LARGEST
    for count, (name, path) in enumerate(_walk(folder), start=1):
        _check_count(count, folder)
        data = _plain_bytes(path, name, left)
        left -= len(data)
        yield name, data


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The names and paths below a folder, in order; no link is followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not prefix and entry.name == _VERSIONS and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{_VERSIONS}/")
            else:
                yield _checked(prefix + entry.name), Path(entry.path)


def _plain_bytes(path: Path, name: str, left: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeFileError(f"{name!r} in the pack is a link; a pack holds plain files only") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnsafeFileError(f"{name!r} in the pack is no plain file")
    with os.fdopen(handle, "rb") as stream:
        return _at_most(stream.read(left + 1), left)


def _of_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) or os.fstat(stream.fileno()).st_size > LARGEST:
            raise UnsafeFileError(f"{path} is no plain file, or larger than a pack may be ({LARGEST:,} bytes)")
        try:
            with zipfile.ZipFile(stream) as pack:
                yield from _entries(pack, path)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
            if isinstance(error, (UnsafeFileError, IntegrityError)):
                raise
            raise IntegrityError(f"{path} is no zip file that can be read: {error}") from error


def _entries(pack: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, bytes]]:
    entries = pack.infolist()
    _check_count(len(entries), path)
    names = [_checked_entry(entry) for entry in entries]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UnsafeFileError(f"{twice!r} is in the pack twice")
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise UnsafeFileError(f"the pack unpacks to more than {LARGEST:,} bytes and is not read")
    left = LARGEST
    for name, entry in zip(names, entries, strict=True):
        with pack.open(entry) as stream:
            data = _at_most(stream.read(min(left, entry.file_size) + 1), left)
        left -= len(data)
        yield name, data


def _checked_entry(entry: zipfile.ZipInfo) -> str:
    """The entry's name, if it is a plain file of a pack."""
    mode = entry.external_attr >> 16
    if entry.filename != entry.orig_filename or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UnsafeFileError(f"{entry.orig_filename!r} in the pack is a link or no plain file")
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise UnsafeFileError(f"{entry.filename!r} in the pack is encrypted, or compressed in an unusual way")
    return _checked(entry.filename)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UnsafeFileError(f"{name!r} is no name of a file in a pack; it could leave the folder, or hide")
    return name


def _check_count(count: int, path: Path) -> None:
    if count > _MOST:
        raise UnsafeFileError(f"{path} holds more than {_MOST:,} files and is not read")


def _at_most(data: bytes, left: int) -> bytes:
    if len(data) > left:
        raise UnsafeFileError(f"the pack has more than {LARGEST:,} bytes and is not read")
    return data
