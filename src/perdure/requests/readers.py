"""Files of facts, opened safely and read by their extension; `perdure.requests.formats` says how each is written.

A file may have 256 MiB and 200,000 rows, a line 8 MiB; the whole file is in memory while it is read.
"""

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from perdure.content import digest_bytes
from perdure.requests.checks import gather
from perdure.requests.formats import FORMATS
from perdure.requests.problems import FactFile, Row, refuse_whole
from perdure.requests.wording import escape

FILE_LIMIT = 256 << 20
ROW_LIMIT = 200_000

BOM = b"\xef\xbb\xbf"
_CODE = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".npy", ".npz", ".joblib", ".dill"}


def read_facts(path: Path | str, *, skip_bad: bool = False) -> FactFile:
    """Checked facts from a file, each with its source such as `facts.jsonl:12`.

    Args:
        path: A `.jsonl`, `.ndjson`, `.json` or `.csv` file, in any shape of `perdure.requests.shapes`.
        skip_bad: Leave bad rows out and report them, instead of refusing the file.

    Raises:
        RequestError: The file cannot be read, a row is bad and `skip_bad` is not set, or no fact is left;
            `.problems` has each reason.
    """
    path = Path(path)
    name, data = read_bytes(path, FORMATS)
    rows = FORMATS[path.suffix.lower()](data.removeprefix(BOM), name)
    return gather(capped(rows, name), name=name, skip_bad=skip_bad, digest=digest_bytes(data))


def read_bytes(path: Path, known: Collection[str]) -> tuple[str, bytes]:
    """The printable name and the bytes of a regular file that is not too large.

    Args:
        path: The file.
        known: The extensions that it may have, in lower case with the dot.

    Raises:
        RequestError: It is missing, no regular file, of another extension, too large, or UTF-16.
    """
    name = name_of(path)
    size = _size_of(path, name)
    _check_extension(path, name, known)
    return name, _bytes_of(path, name, size)


def name_of(path: Path) -> str:
    """What a file or folder is called in messages: the last part of its path, printable and not too long."""
    return escape(path.name[:100])[:200] or "."


def _size_of(path: Path, name: str) -> int:
    """The size in bytes of a regular file."""
    try:
        found = path.stat()
    except OSError as error:
        raise refuse_whole(name, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise refuse_whole(name, f"is not the name of a file: {error}") from error
    if stat.S_ISDIR(found.st_mode):
        raise refuse_whole(name, "is a folder; name the file with the facts")
    if not stat.S_ISREG(found.st_mode):
        raise refuse_whole(name, "is not a regular file but a pipe, socket or device")
    return found.st_size


def _check_extension(path: Path, name: str, known: Collection[str]) -> None:
    suffix, listed = path.suffix.lower(), ", ".join(known)
    if suffix in _CODE:
        reason = f"a {suffix} file can run code when it is loaded, so it is not opened; export it to one of {listed}"
        raise refuse_whole(name, reason)
    if suffix not in known:
        raise refuse_whole(name, f"unknown extension {escape(suffix)!r}. Known: {listed}")


def _bytes_of(path: Path, name: str, size: int) -> bytes:
    data = b""
    if size <= FILE_LIMIT:
        try:
            with path.open("rb") as stream:
                # One byte more than allowed: the file may have grown since its size was asked.
                data = stream.read(FILE_LIMIT + 1)
                size = max(len(data), os.fstat(stream.fileno()).st_size)
        except OSError as error:
            raise refuse_whole(name, f"cannot be read: {error.strerror or error}") from error
    if size > FILE_LIMIT:
        raise refuse_whole(name, f"has {size} bytes; at most {FILE_LIMIT} are allowed. Split it")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise refuse_whole(name, "is UTF-16; save it as UTF-8")
    return data


def capped(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """`rows`, refused once they are more than a file may have.

    Raises:
        RequestError: There are more than `ROW_LIMIT`.
    """
    for count, row in enumerate(rows, 1):
        if count > ROW_LIMIT:
            raise refuse_whole(name, f"has more than {ROW_LIMIT} rows; split it")
        yield row
