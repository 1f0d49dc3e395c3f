"""Images of concept sets in NPZ files: plain numbers, never pickles.

Shape suffixes: N rows, H and W of an image, C channels.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from perdure.errors import RequestError
from perdure.requests.concept_items import (
    ConceptSource,
    Found,
    Outcome,
    array_digest,
    as_array,
    label_fault,
    require_pillow,
)
from perdure.requests.concept_texts import WEIGHT_KEYS
from perdure.requests.problems import Place, Problem, refuse_whole
from perdure.requests.readers import name_of
from perdure.requests.wording import escape

ARRAY_LIMIT = 8 << 30
CLASS_KEYS = ("classes", "class_names", "label_names", "names")


def read_arrays(path: Path, *, labelled: bool) -> ConceptSource:
    """The images of an NPZ file: `x_train`, `y_train`, `x_test`, `y_test`, or `x`, `y`; class names in `classes`.

    Raises:
        RequestError: It is no such file.
    """
    require_pillow()
    name = name_of(path)
    arrays = _arrays(path, name)
    names = next((arrays[key] for key in CLASS_KEYS if key in arrays), None)
    classes = None if names is None else [str(value).strip() for value in np.ravel(names)]
    source = ConceptSource("image", {}, as_array)
    for part, (x_key, y_key) in _keys_of(arrays, name, labelled).items():
        pixels = _pixels(arrays[x_key], f"{name} {x_key}")
        labels = _labels(arrays[y_key], classes, f"{name} {y_key}") if labelled else [("", "")] * len(pixels)
        weights = _weights(arrays, len(pixels), name) if not labelled else [1.0] * len(pixels)
        if len(labels) != len(pixels):
            raise refuse_whole(name, f"{x_key} has {len(pixels)} rows and {y_key} has {len(labels)}")
        rows = zip(pixels, labels, weights, strict=True)
        source.take(part, (_outcome(Place(f"{name} {x_key}", at, "index"), *row) for at, row in enumerate(rows)))
    return source


def _outcome(place: Place, pixels: np.ndarray, label: tuple[str, str], weight: float) -> Outcome:
    named, fault = label
    if not weight > 0:
        fault = f"the weight {weight} is not above 0"
    return Problem(place, fault) if fault else Found(place, pixels, named, array_digest(pixels), weight)


def _weights(arrays: Mapping[str, np.ndarray], count: int, name: str) -> list[float]:
    """How often each image occurs."""
    key = next((key for key in WEIGHT_KEYS if key in arrays), None)
    if key is None:
        return [1.0] * count
    flat = np.ravel(arrays[key])
    if flat.dtype.kind not in "iuf" or len(flat) != count or not np.isfinite(flat).all():
        raise refuse_whole(name, f"{key} is {flat.dtype} {list(arrays[key].shape)}; a number for each image is needed")
    return [float(value) for value in flat]


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > ARRAY_LIMIT:
            raise refuse_whole(name, f"holds {size} bytes; at most {ARRAY_LIMIT} are allowed. Split it")
        with np.load(path, allow_pickle=False) as stored:
            return {str(key).lower(): stored[key] for key in stored.files}
    except RequestError:
        raise
    except Exception as error:  # broken or encrypted archives and headers raise errors of many kinds
        said = escape(str(error)[:200])
        reason = f"cannot be read as arrays: {said}. Objects (pickles) are refused; save plain numbers and texts"
        raise refuse_whole(name, reason) from error


def _keys_of(arrays: Mapping[str, np.ndarray], name: str, labelled: bool) -> dict[str, tuple[str, str]]:
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


def _labels(array: np.ndarray, classes: Sequence[str] | None, name: str) -> list[tuple[str, str]]:
    """Each row's label, or why it has none."""
    flat = array.reshape(-1) if array.ndim in (1, 2) and array.size == len(array) else None
    if flat is None or flat.dtype.kind not in "iuU":
        raise refuse_whole(name, f"is {array.dtype} {list(array.shape)}; labels are whole numbers or texts [N]")
    if flat.dtype.kind == "U":
        return [(name, label_fault(name)) for name in (str(value).strip() for value in flat)]
    if classes is None:
        return [(str(value), "") for value in flat.tolist()]
    return [
        (classes[value], label_fault(classes[value])) if 0 <= value < len(classes)
        else ("", f"label {value} has no name; there are {len(classes)} names, from 0")
        for value in flat.tolist()
    ]  # fmt: skip
