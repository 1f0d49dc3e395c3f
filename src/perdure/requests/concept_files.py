"""Where concept sets stand: folders of images, arrays in NPZ files, texts in JSONL, JSON, CSV or TXT, data sets.

Everything is read without running code: arrays without pickles, data sets without scripts.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perdure.requests.concept_items import (
    Found,
    Side,
    array_digest,
    as_array,
    as_text,
    checked_picture,
    open_picture,
    require_pillow,
    text_digest,
    text_fault,
)
from perdure.requests.formats import load_json, read_jsonl, read_table, rows_in
from perdure.requests.problems import Place, Problem, Row, refuse_whole
from perdure.requests.readers import BOM, capped, name_of, read_bytes
from perdure.requests.task_datasets import is_saved, read_hub, read_saved
from perdure.requests.task_files import TaskSource, part_named
from perdure.requests.wording import escape, shorten

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".txt")
ARRAY_LIMIT = 8 << 30
TEXT_KEYS = ("text", "sentence", "question", "query", "prompt", "input", "content")
LABEL_KEYS = ("label", "labels", "category", "intent", "class", "target", "output")
WEIGHT_KEYS = ("count", "weight", "weights", "counts", "frequency", "traffic")
IMAGE_KEYS = ("image", "img", "picture")


@dataclass
class ConceptSource:
    """What a reader found, before rows are held against each other.

    Attributes:
        side: What the items are.
        parts: Rows by part, `train` and `test`; those of a source without parts are all train.
        opened: Makes an item of a handle.
        problems: Rows that cannot be used.
        notes: What was not read.
    """

    side: Side
    parts: dict[str, list[Found]]
    opened: Callable[[Any], Any]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_source(path: Path, given: str, *, labelled: bool) -> ConceptSource:
    """The rows of a file, a folder or a data set.

    Args:
        path: Where it is.
        given: As the user wrote it: an id of the hub where there is no such path.
        labelled: Whether every row must have a label.

    Raises:
        RequestError: It cannot be read at all.
    """
    from perdure.requests.task_datasets import is_hub_id

    if path.is_dir():
        return read_saved_set(path, labelled) if is_saved(path) else _read_folder(path, labelled)
    if not path.exists() and is_hub_id(given):
        return _read_rows(read_hub(given), labelled)
    if path.suffix.lower() == ".npz":
        return read_arrays(path, labelled)
    return _read_texts({"train": path}, labelled)


def read_saved_set(folder: Path, labelled: bool) -> ConceptSource:
    """The rows of a folder that `Dataset.save_to_disk` wrote."""
    return _read_rows(read_saved(folder), labelled)


def _read_folder(folder: Path, labelled: bool) -> ConceptSource:
    name = name_of(folder)
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = {part: path for path in inside if path.is_file() and path.suffix.lower() in TEXTS
             and (part := part_named(path.stem))}  # fmt: skip
    if "train" in files:
        return _read_texts(_two_parts(files), labelled)
    folders = [path for path in inside if path.is_dir()]
    parts = {part: path for path in folders if (part := part_named(path.name))}
    if "train" in parts:
        return _read_pictures(folder, _two_parts(parts), labelled)
    if folders or not labelled:
        return _read_pictures(folder, {"train": folder}, labelled)
    raise refuse_whole(
        name, "holds no sub-folders with images, one for each class, nor train and test with those, nor train.csv"
    )


def _two_parts(parts: Mapping[str, Path]) -> dict[str, Path]:
    """Train and test; without a test part the validation part is it."""
    test = parts.get("test") or parts.get("validation")
    return {"train": parts["train"], **({"test": test} if test else {})}


def _read_pictures(root: Path, parts: Mapping[str, Path], labelled: bool) -> ConceptSource:
    require_pillow()
    source = ConceptSource("image", {}, open_picture)
    other: list[str] = []
    for part, folder in parts.items():
        source.parts[part] = []
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            if any(step.startswith(".") for step in inside) or not path.is_file():
                continue
            if path.suffix.lower() not in PICTURES or (labelled and len(inside) < 2):
                other.append(escape(str(path.relative_to(root))[:60]))
                continue
            place = Place(escape(str(path.relative_to(root))[:200]))
            _keep(source, part, *checked_picture(Found(place, path, inside[0] if labelled else "")))
    if other:
        source.notes.append(f"files not read: {len(other)} ({', '.join(other[:3])})")
    return source


def _keep(source: ConceptSource, part: str, row: Found | None, problem: Problem | None) -> None:
    if row is not None:
        source.parts[part].append(row)
    if problem is not None:
        source.problems.append(problem)


def read_arrays(path: Path, labelled: bool) -> ConceptSource:
    """The images of an NPZ file: `x_train`, `y_train`, `x_test`, `y_test`, or `x`, `y`; class names in `classes`.

    Raises:
        RequestError: It is no such file.
    """
    require_pillow()
    name = name_of(path)
    arrays = _arrays(path, name)
    names = next((arrays[key] for key in ("classes", "class_names", "label_names", "names") if key in arrays), None)
    classes = None if names is None else [str(value).strip() for value in np.ravel(names)]
    source = ConceptSource("image", {}, as_array)
    for part, (x_key, y_key) in _array_parts(arrays, name, labelled).items():
        pixels = _pixels(arrays[x_key], f"{name} {x_key}")
        count = len(pixels)
        labels = _array_labels(arrays[y_key], classes, f"{name} {y_key}") if labelled else [("", "")] * count
        weights = next((np.ravel(arrays[key]) for key in WEIGHT_KEYS if key in arrays), np.ones(count))
        if len(labels) != count or len(weights) != count:
            raise refuse_whole(name, f"{x_key} has {count} rows and what goes with it {len(labels)} and {len(weights)}")
        source.parts[part] = []
        for index, (label, fault) in enumerate(labels):
            place = Place(f"{name} {x_key}", index, "index")
            row = Found(place, pixels[index], label, array_digest(pixels[index]), float(weights[index]))
            _keep(source, part, None if fault else row, Problem(place, fault, y_key) if fault else None)
    return source


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > ARRAY_LIMIT:
            raise refuse_whole(name, f"holds {size} bytes; at most {ARRAY_LIMIT} are allowed. Split it")
        with np.load(path, allow_pickle=False) as stored:
            return {str(key).lower(): stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = f"cannot be read as arrays: {error}. Objects (pickles) are refused; save plain numbers and texts"
        raise refuse_whole(name, reason) from error


def _array_parts(arrays: Mapping[str, np.ndarray], name: str, labelled: bool) -> dict[str, tuple[str, str]]:
    def pair(part: str) -> tuple[str, str] | None:
        patterns = ("{0}_{1}", "{1}_{0}") if part else ("{0}",)
        x, y = (
            next((key for stem in stems for pattern in patterns if (key := pattern.format(stem, part)) in arrays), "")
            for stems in (("x", "images", "data", "features"), ("y", "labels", "label", "targets"))
        )
        return (x, y) if x and (y or not labelled) else None

    train, test = pair("train"), pair("test") or pair("val") or pair("validation")
    if train:
        return {"train": train, **({"test": test} if test else {})}
    whole = pair("")
    if whole:
        return {"train": whole}
    wanted = "x_train, y_train, x_test and y_test, or x and y" if labelled else "x"
    raise refuse_whole(name, f"holds {', '.join(arrays) or 'nothing'}; {wanted} are needed")


def _pixels(array: np.ndarray, name: str) -> np.ndarray:
    """Images [N, H, W, C] or [N, H, W]."""
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    fits = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits or 0 in array.shape[1:]:
        found = f"{array.dtype} {list(array.shape)}"
        raise refuse_whole(name, f"is {found}; images are uint8 [N, H, W, 3] or [N, H, W], from 0 to 255")
    return array


def _array_labels(array: np.ndarray, classes: Sequence[str] | None, name: str) -> list[tuple[str, str]]:
    """Each row's label, or why it has none."""
    flat = array.reshape(-1) if array.ndim <= 2 and array.size == len(array) else None
    if flat is None or flat.dtype.kind not in "iuU":
        raise refuse_whole(name, f"is {array.dtype} {list(array.shape)}; labels are whole numbers or texts [N]")
    if flat.dtype.kind == "U":
        return [(str(value).strip(), "" if str(value).strip() else "the label is blank") for value in flat]
    if classes is None:
        return [(str(value), "") for value in flat.tolist()]
    return [
        (classes[value], "") if 0 <= value < len(classes)
        else ("", f"label {value} has no name; there are {len(classes)} names, from 0")
        for value in flat.tolist()
    ]  # fmt: skip


def _read_texts(files: Mapping[str, Path], labelled: bool) -> ConceptSource:
    source = ConceptSource("text", {}, as_text)
    for part, path in files.items():
        name, data = read_bytes(path, (*TEXTS, ".npz"))
        rows = _FORMATS[path.suffix.lower()](data.removeprefix(BOM), name, labelled)
        source.parts[part] = []
        for row in capped(rows, name):
            _keep(source, part, *_text_row(row, labelled))
    return source


def _text_row(row: Row, labelled: bool) -> tuple[Found | None, Problem | None]:
    if row.problems:
        return None, row.problems[0]
    value = row.value
    if isinstance(value, str) and not labelled:
        value = {"text": value}
    if not isinstance(value, Mapping):
        return None, Problem(row.place, "must be an object with text and label", value=shorten(value))
    given = {str(key).strip().lower(): entry for key, entry in value.items()}
    key = next((key for key in TEXT_KEYS if key in given), "")
    if not key:
        return None, Problem(row.place, f"has no text; it has {_listed(given)}", "text")
    if fault := text_fault(given[key]):
        return None, Problem(row.place, fault, key, shorten(given[key]))
    found = Found(row.place, given[key], digest=text_digest(given[key]))
    return _with_label(found, given, labelled)


def _with_label(row: Found, given: Mapping[str, Any], labelled: bool) -> tuple[Found | None, Problem | None]:
    """The row with its label, or its weight where there are no labels."""
    if not labelled:
        return _with_weight(row, given)
    key = next((key for key in LABEL_KEYS if key in given), "")
    if not key:
        return None, Problem(row.place, f"has no label; it has {_listed(given)}", "label")
    label = given[key]
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        return None, Problem(row.place, "must be the name of a class", key, shorten(label))
    return replace(row, label=str(label).strip()), None


def _with_weight(row: Found, given: Mapping[str, Any]) -> tuple[Found | None, Problem | None]:
    key = next((key for key in WEIGHT_KEYS if given.get(key) not in (None, "")), "")
    if not key:
        return row, None
    try:
        weight = float(given[key])
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 < weight < float("inf"):
        return None, Problem(row.place, "must be a number above 0", key, shorten(given[key]))
    return replace(row, weight=weight), None


def _listed(given: Iterable[str]) -> str:
    return ", ".join(escape(key[:30]) for key in list(given)[:8]) or "nothing"


def _lines(data: bytes, name: str, labelled: bool) -> Iterator[Row]:
    return read_jsonl(data, name)


def _value(data: bytes, name: str, labelled: bool) -> Iterator[Row]:
    found = load_json(data, name)
    inside = (
        next((found[key] for key in ("data", "rows", "train") if key in found), found)
        if isinstance(found, dict)
        else found
    )
    return rows_in(inside, name)


def _columns(data: bytes, name: str, labelled: bool) -> Iterator[Row]:
    def fault(names: Sequence[str]) -> str:
        lowered = [column.lower() for column in names]
        missing = [keys[0] for keys in (TEXT_KEYS, *((LABEL_KEYS,) if labelled else ())) if not {*keys} & {*lowered}]
        return f"the header has {_listed(names)}; it lacks {' and '.join(missing)}" if missing else ""

    return read_table(data, name, fault, lambda names, cells: dict(zip(names, cells, strict=True)))


def _plain(data: bytes, name: str, labelled: bool) -> Iterator[Row]:
    if labelled:
        raise refuse_whole(name, "is plain text without labels; give JSONL or CSV with text and label")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise refuse_whole(name, f"is not UTF-8: {error.reason} at byte {error.start + 1}") from error
    return (Row(Place(name, number), line) for number, line in enumerate(lines, 1) if line.strip())


_FORMATS: dict[str, Callable[[bytes, str, bool], Iterator[Row]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _value,
    ".csv": _columns,
    ".txt": _plain,
}


def _read_rows(found: TaskSource, labelled: bool) -> ConceptSource:
    """The rows of a data set: texts, or images stored in the data set itself."""
    parts = {"train": found.parts["train"]}
    test = found.parts.get("test") or found.parts.get("validation")
    if test:
        parts["test"] = test
    first = next((row.value for row in parts["train"] if isinstance(row.value, Mapping)), {})
    pictured = bool({*IMAGE_KEYS} & {str(key).lower() for key in first})
    if pictured:
        require_pillow()
    read = _picture_row if pictured else _text_row
    source = ConceptSource("image" if pictured else "text", {}, open_picture if pictured else as_text)
    source.notes += found.notes
    for part, rows in parts.items():
        source.parts[part] = []
        for row in rows:
            _keep(source, part, *read(row, labelled))
    return source


def _picture_row(row: Row, labelled: bool) -> tuple[Found | None, Problem | None]:
    value = row.value if isinstance(row.value, Mapping) else {}
    given = {str(key).lower(): entry for key, entry in value.items()}
    image = next((given[key] for key in IMAGE_KEYS if key in given), None)
    data = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(data, bytes):  # a path would be opened from wherever the data set says
        return None, Problem(row.place, "has no image stored in the data set itself", "image")
    found, problem = _with_label(Found(row.place, data), given, labelled)
    return (None, problem) if found is None else checked_picture(found)
