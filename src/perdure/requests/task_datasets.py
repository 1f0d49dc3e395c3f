"""Hugging Face data sets as rows of a task: saved by `Dataset.save_to_disk`, or by their id on the hub.

Rows come from the Arrow tables as they are stored: nothing is decoded, so no column can open a file or an address.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from perdure.errors import RequestError
from perdure.requests.problems import Place, Row, refuse_whole
from perdure.requests.readers import FILE_LIMIT, ROW_LIMIT, name_of, read_bytes
from perdure.requests.task_files import TASK_FORMATS, TaskSource, part_named, source_of
from perdure.requests.wording import escape, shorten

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"


def is_hub_id(text: str) -> bool:
    """Whether `text` can be the id of a data set on the hub: `owner/name`, and not the name of a data file."""
    return _HUB_ID.fullmatch(text) is not None and Path(text).suffix.lower() not in TASK_FORMATS


def is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    return (folder / _DICT).is_file() or all((folder / name).is_file() for name in (_STATE, _INFO))


def read_saved(folder: Path) -> TaskSource:
    """The rows of a folder that `save_to_disk` wrote.

    Raises:
        RequestError: The library is missing, or the folder is damaged, names files outside, or is too large.
    """
    name = name_of(folder)
    library = _library()
    _check_inside(folder, name)
    try:
        found = library.load_from_disk(str(folder.resolve()))
    except Exception as error:  # the library raises whatever Arrow, JSON or the system do
        raise refuse_whole(name, f"is a damaged data set: {_told(error)}") from error
    return _source(found, name, folder)


def read_hub(hub_id: str) -> TaskSource:
    """The rows of a data set on the hub; scripts that come with one are never run.

    Raises:
        RequestError: The library is missing, or the data set cannot be fetched or is too large.
    """
    try:
        found = _library().load_dataset(hub_id, trust_remote_code=False)
    except RequestError:
        raise
    except Exception as error:  # as above, and whatever the network does
        reason = f"is no file or folder here, and could not be fetched from the hub: {_told(error)}"
        raise refuse_whole(hub_id, reason) from error
    return _source(found, hub_id, None)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise RequestError(
            f"data sets of Hugging Face need the library datasets ({error}); "
            "install it with: pip install 'perdure[datasets]'"
        ) from error
    return datasets


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a folder whose files name others that lie outside: the library would open them."""
    if "::" in str(folder.resolve()):
        raise refuse_whole(name, "has :: in its path, which the library datasets reads as two paths; move it")
    parts = [folder]
    if (folder / _DICT).is_file():
        splits = _listed_in(folder / _DICT, "splits", name)
        parts = [folder / split for split in splits if _is_name(split, name)]
    for part in parts:
        for file in _listed_in(part / _STATE, "_data_files", name):
            _is_name(file.get("filename") if isinstance(file, Mapping) else file, name)


def _listed_in(path: Path, key: str, name: str) -> list[Any]:
    _, data = read_bytes(path, (".json",))
    try:
        found = json.loads(data)[key]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise refuse_whole(name, f"is a damaged data set: {path.name} has no {key}") from error
    if not isinstance(found, list):
        raise refuse_whole(name, f"is a damaged data set: {key} in {path.name} is no list")
    return found


def _is_name(given: object, name: str) -> bool:
    """Always true: what is no plain name raises."""
    if not isinstance(given, str) or given in ("", ".", "..") or set(given) & set("/\\\0:"):
        raise refuse_whole(name, f"names {shorten(given)}, which is no file or folder inside it")
    return True


def _source(found: Any, name: str, folder: Path | None) -> TaskSource:
    """A data set without splits is all train; so is the only split of one."""
    splits = dict(found) if isinstance(found, Mapping) else {"train": found}
    if len(splits) == 1 and part_named(next(iter(splits))) is None:
        splits = {"train": next(iter(splits.values()))}
    return source_of({key: partial(_rows_of, split, f"{name} {key}") for key, split in splits.items()}, name, folder)


def _rows_of(split: Any, name: str) -> list[Row]:
    if len(split) > ROW_LIMIT or split.data.nbytes > FILE_LIMIT:
        size = f"{len(split)} rows and {split.data.nbytes} bytes"
        raise refuse_whole(name, f"has {size}; at most {ROW_LIMIT} and {FILE_LIMIT} are allowed. Select a part of it")
    labels = {key: kind.names for key, kind in split.features.items() if type(kind).__name__ == "ClassLabel"}
    stored = split.with_format("arrow")[:].to_pylist()
    named = (row | {key: _label(row[key], names) for key, names in labels.items()} for row in stored)
    return [Row(Place(name, index, "index"), row) for index, row in enumerate(named)]


def _label(value: Any, names: list[str]) -> Any:
    """The name of a class; what has none stays as it is and is refused later, being no text."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _told(error: Exception) -> str:
    return escape(str(error)[:300] or type(error).__name__)
