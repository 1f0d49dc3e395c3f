"""Where the rows of a task stand: one file, or one for each part, in JSONL, JSON or CSV.

- `.jsonl`, `.ndjson`: one object a line.
- `.json`: a list of objects; an object that holds one under `data`; an object with the parts `train`, `validation`,
  `test`; a file of Super-NaturalInstructions, with `Definition` and `Instances` or parts.
- `.csv`: a header with the names of the columns, in any case.
- A folder: a file for each part, such as `train.jsonl` and `test.csv`.
"""

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from perdure.requests.formats import load_json, read_jsonl, read_table, repeated_in, rows_in
from perdure.requests.problems import Row, refuse_whole
from perdure.requests.readers import BOM, capped, name_of, read_bytes
from perdure.requests.task_checks import tell_count
from perdure.requests.task_shapes import DEFINITION, task_shape_of
from perdure.requests.wording import escape, shorten

PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}  # fmt: skip

Parts = dict[str, list[Row]]
"""Rows by part: train, validation, test."""


@dataclass(frozen=True)
class TaskSource:
    """The rows of a task before they are checked.

    Attributes:
        parts: Rows by part; those of a source without parts are all train.
        folder: Where the names of images start; None for a data set of the hub.
        notes: What was not read.
    """

    parts: Parts
    folder: Path | None
    notes: tuple[str, ...] = ()


def part_named(name: str) -> str | None:
    """Which part a file or split of this name is; None when it is none."""
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def source_of(readers: Mapping[str, Callable[[], list[Row]]], name: str, folder: Path | None) -> TaskSource:
    """The rows of those readers whose key is the name of a part.

    Raises:
        RequestError: No key is train, or two are the same part.
    """
    keys: dict[str, str] = {}
    for key in readers:
        if (part := part_named(Path(key).stem)) and (other := keys.setdefault(part, key)) is not key:
            raise refuse_whole(name, f"has {escape(other)} and {escape(key)} for one part; keep one")
    shown = ", ".join(escape(key[:60]) for key in list(readers)[:10])
    if "train" not in keys:
        raise refuse_whole(name, f"has no part called train, but {shown or 'nothing that can be read'}")
    unread = [key for key in readers if key not in keys.values()]
    notes = tell_count("files or splits not read", [escape(key[:60]) for key in unread])
    return TaskSource({part: readers[keys[part]]() for part in PART_NAMES if part in keys}, folder, tuple(notes))


def read_file(path: Path) -> TaskSource:
    """The rows of one file.

    Raises:
        RequestError: The file cannot be read at all.
    """
    name, data = read_bytes(path, TASK_FORMATS)
    return TaskSource(TASK_FORMATS[path.suffix.lower()](data.removeprefix(BOM), name), path.parent)


def read_folder(folder: Path) -> TaskSource:
    """The rows of a folder with a file for each part.

    Raises:
        RequestError: There is no train file, a part has several files, or one cannot be read.
    """
    name = name_of(folder)
    try:
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TASK_FORMATS]
    except OSError as error:
        raise refuse_whole(name, f"cannot be read: {error.strerror or error}") from error
    return source_of({path.name: partial(_whole, path) for path in files}, name, folder)


def _whole(path: Path) -> list[Row]:
    """The rows of a file that is one part."""
    parts = read_file(path).parts
    if set(parts) != {"train"}:
        raise refuse_whole(name_of(path), "has parts of its own; name this file instead of its folder")
    return parts["train"]


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; what cannot be looked up is none, and reading it says why."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _read_lines(data: bytes, file: str) -> Parts:
    return {"train": list(capped(read_jsonl(data, file), file))}


def _read_columns(data: bytes, file: str) -> Parts:
    return {"train": list(capped(read_table(data, file, _columns_fault, _object_of), file))}


def _columns_fault(names: Sequence[str]) -> str:
    """Why no examples can be read from these columns; empty when they can."""
    lowered = [name.lower() for name in names]
    if len(set(lowered)) < len(lowered):
        return "the header names a column more than once"
    if names and task_shape_of(dict.fromkeys(lowered)) is None:
        columns = ", ".join(escape(name[:30]) for name in names[:10])
        return f"the header has {columns}; two columns such as text,label or question,answer are needed"
    return ""


def _object_of(names: Sequence[str], cells: Sequence[str]) -> Mapping[str, Any]:
    return {name.lower(): cell for name, cell in zip(names, cells, strict=True)}


def _read_value(data: bytes, file: str) -> Parts:
    if not data.strip():
        return {"train": []}
    value = load_json(data, file)
    if not isinstance(value, dict):
        return {"train": list(capped(rows_in(value, file), file))}
    if repeated := repeated_in(value):
        raise refuse_whole(file, f"the key {shorten(repeated[0])} stands more than once; keep one")
    definition = _definition_in(value, file)
    return {
        part: [_defined(row, definition) for row in capped(_rows_under(value, key, file), file)]
        for part, key in _lists_in(value, file).items()
    }


def _lists_in(value: dict[str, Any], file: str) -> dict[str, str]:
    """The key of each part."""
    whole = [key for key in ("Instances", "data") if key in value]
    found = {part: [key for key in names if key in value] for part, names in PART_NAMES.items()}
    several = [keys for keys in found.values() if len(keys) > 1]
    if several:
        raise refuse_whole(file, f"has {' and '.join(several[0])} for one part; keep one")
    parts = {part: keys[0] for part, keys in found.items() if keys}
    if len(whole) == 1 and not parts:
        return {"train": whole[0]}
    if "train" in parts and not whole:
        return parts
    reason = "must be a list of objects, or an object with the lists train, validation and test, or Instances, or data"
    raise refuse_whole(file, reason)


def _rows_under(value: dict[str, Any], key: str, file: str) -> Iterator[Row]:
    yield from rows_in(value[key], f"{file} {key}")


def _definition_in(value: dict[str, Any], file: str) -> str | None:
    """What the file says that the work is: of several definitions the first."""
    if "Definition" not in value:
        return None
    given = value["Definition"]
    first = given[0] if isinstance(given, list) and given else given
    if not isinstance(first, str) or not first.strip():
        raise refuse_whole(file, "has a Definition that is no text")
    return first


def _defined(row: Row, definition: str | None) -> Row:
    if definition is None or not isinstance(row.value, Mapping):
        return row
    return replace(row, value={**row.value, DEFINITION: definition})


TASK_FORMATS: dict[str, Callable[[bytes, str], Parts]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_value,
    ".csv": _read_columns,
}
