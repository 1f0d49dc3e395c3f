"""Where concept sets stand: folders of images, arrays, files of texts, data sets of Hugging Face.

Everything is read without running code: arrays without pickles, data sets without scripts.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from perdure.pictures import open_picture
from perdure.progress import Progress, silent
from perdure.requests.concept_arrays import read_arrays
from perdure.requests.concept_items import (
    ConceptSource,
    Found,
    Outcome,
    as_text,
    checked_picture,
    require_pillow,
)
from perdure.requests.concept_pictures import read_pictures
from perdure.requests.concept_texts import TEXTS, read_texts, text_row, with_label
from perdure.requests.problems import Problem, Row, refuse_whole
from perdure.requests.readers import name_of
from perdure.requests.task_checks import tell_count
from perdure.requests.task_datasets import is_hub_id, is_saved, read_hub, read_saved
from perdure.requests.task_files import TaskSource, part_named
from perdure.requests.wording import escape

IMAGE_KEYS = ("image", "img", "picture")


def read_source(path: Path, *, labelled: bool, progress: Progress = silent) -> ConceptSource:
    """The rows of a file, a folder or a data set.

    Args:
        path: Where it is; where there is no such path, the id of a data set on the hub.
        labelled: Whether every row must have a label.
        progress: Told how many pictures were read.

    Raises:
        RequestError: It cannot be read at all.
    """
    if path.is_dir():
        saved = is_saved(path)
        return _rows_of(read_saved(path), labelled) if saved else _read_folder(path, labelled, progress)
    if not path.exists() and path.suffix.lower() != ".npz" and is_hub_id(str(path)):
        return _rows_of(read_hub(str(path)), labelled)
    if path.suffix.lower() == ".npz" and path.is_file():
        return read_arrays(path, labelled=labelled)
    return read_texts({"train": path}, labelled=labelled)


def _read_folder(folder: Path, labelled: bool, progress: Progress) -> ConceptSource:
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise refuse_whole(name_of(folder), f"cannot be read: {error.strerror or error}") from error
    files = _parts(folder, [path for path in inside if path.suffix.lower() in TEXTS])
    if "train" in files:
        chosen = _two_parts(files)
        return _noting(read_texts(chosen, labelled=labelled), inside, chosen)
    folders = [path for path in inside if path.is_dir()]
    parts = _parts(folder, folders) if labelled and any(map(_holds_classes, folders)) else {}
    if "train" in parts:
        chosen = _two_parts(parts)
        return _noting(read_pictures(folder, chosen, labelled=True, progress=progress), inside, chosen)
    if folders or not labelled:
        return read_pictures(folder, {"train": folder}, labelled=labelled, progress=progress)
    raise refuse_whole(
        name_of(folder),
        "holds no sub-folder with images for each class, no train and test with those, and no train.csv or train.jsonl",
    )


def _parts(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """The files or folders that are named as parts, by part.

    Raises:
        RequestError: Two are the same part.
    """
    found: dict[str, Path] = {}
    for path in paths:
        part = part_named(path.stem if path.is_file() else path.name)
        if part and found.setdefault(part, path) != path:
            raise refuse_whole(name_of(folder), f"has {found[part].name} and {path.name} for one part; keep one")
    return found


def _holds_classes(folder: Path) -> bool:
    """Whether a folder is a train part with a folder for each class, and no class of trains."""
    return part_named(folder.name) == "train" and any(path.is_dir() for path in folder.iterdir())


def _noting(source: ConceptSource, inside: Sequence[Path], chosen: Mapping[str, Path]) -> ConceptSource:
    """The source with a note of what stands beside its parts and was not read."""
    left = [escape(path.name[:60]) for path in inside if path not in chosen.values()]
    source.notes += tell_count("files or folders not read", left)
    return source


def _two_parts(parts: Mapping[str, Path]) -> dict[str, Path]:
    """Train and test; without a test part the validation part is it."""
    test = parts.get("test") or parts.get("validation")
    return {"train": parts["train"], **({"test": test} if test else {})}


def _rows_of(found: TaskSource, labelled: bool) -> ConceptSource:
    """The rows of a data set: texts, or images stored in the data set itself."""
    test = found.parts.get("test") or found.parts.get("validation")
    parts = {"train": found.parts["train"], **({"test": test} if test else {})}
    first = next((row.value for row in parts["train"] if isinstance(row.value, Mapping)), {})
    key = next((str(key) for key in first if str(key).lower() in IMAGE_KEYS), None)
    if key is None:
        source, read = ConceptSource("text", {}, as_text), text_row
    else:
        require_pillow()
        source = ConceptSource("image", {}, open_picture)
        read = partial(_picture_row, key)
    source.notes += found.notes
    for part, rows in parts.items():
        source.take(part, (read(row, labelled) for row in rows))
    return source


def _picture_row(key: str, row: Row, labelled: bool) -> Outcome:
    value = row.value if isinstance(row.value, Mapping) else {}
    image = value.get(key)
    data = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(data, bytes):  # a path would be opened from wherever the data set says
        return Problem(row.place, "has no image stored in the data set itself", key)
    given = {str(name).strip().lower(): entry for name, entry in value.items() if name != key}
    found = with_label(Found(row.place, data), given, labelled)
    return found if isinstance(found, Problem) else checked_picture(found)
