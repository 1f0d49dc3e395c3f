"""Found concepts as files of a folder: a JSON for people and a small safetensors each, named by content; and marks.

Reading cards and marks takes no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from perdure.content import canonical_json, write_atomic
from perdure.errors import IntegrityError, SettingError, UnknownNameError
from perdure.measuring.watched import Discovery, FoundConcept, Marks

if TYPE_CHECKING:
    from perdure.measuring.discovery import Discovered

FOLDER = "concepts"
_MARKS = "watched.json"
_SHORT = 16
_DTYPES = {"centre": "float32", "centres": "float32", "reach": "float64", "assigned": "int32"}


def save_found(found: "Discovered", folder: Path) -> Path:
    """Write concepts to a folder; the same ones give the same bytes. Gives the JSON file.

    The safetensors file is written first: a JSON file without it is never seen.
    """
    import numpy as np
    from safetensors.numpy import save

    arrays = {
        "centre": found.centre_D,
        "centres": found.groups.centres_CD,
        "reach": found.groups.reach_C,
        "assigned": found.assigned_N,
    }
    data = {name: np.ascontiguousarray(value, _DTYPES[name]) for name, value in arrays.items()}
    write_atomic(_file(folder, found.card.key, "safetensors"), save(data))
    card = _file(folder, found.card.key, "json")
    write_atomic(card, f"{canonical_json(found.card.model_dump(mode='json'))}\n".encode())
    return card


def load_found(folder: Path, key: str) -> "Discovered":
    """The concepts of a key.

    Raises:
        IntegrityError: A file is missing or damaged.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from perdure.measuring.clusters import Groups
    from perdure.measuring.discovery import Discovered

    card = read_card(folder, key)
    path = _file(folder, key, "safetensors")
    try:
        arrays: Mapping[str, Any] = load(path.read_bytes())
        centre, centres, reach, assigned = (np.array(arrays[name]) for name in _DTYPES)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is no readable set of concepts: {error}") from error
    _check(path, card, (centre, centres, reach, assigned))
    groups = Groups(centres.astype(np.float64), reach.astype(np.float64))
    return Discovered(card, centre.astype(np.float64), groups, assigned.astype(np.int64))


def is_kept(folder: Path, key: str) -> bool:
    """Whether the concepts of a key are in the folder."""
    return _file(folder, key, "json").is_file()


def read_card(folder: Path, key: str) -> Discovery:
    """What people read of the concepts of a key.

    Raises:
        IntegrityError: The file is missing or damaged.
    """
    path = _file(folder, key, "json")
    try:
        card = Discovery.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{path} is no readable set of concepts: {error}") from error
    if card.key != key:
        raise IntegrityError(f"{path} holds the concepts {card.key[:_SHORT]}; it was renamed or changed")
    return card


def read_marks(folder: Path) -> Marks | None:
    """Which concepts are in force and protected; None where none were found yet.

    Raises:
        IntegrityError: The file is damaged.
    """
    path = folder / _MARKS
    if not path.is_file():
        return None
    try:
        return Marks.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{path} is not readable: {error}") from error


def write_marks(folder: Path, marks: Marks) -> None:
    """Keep which concepts are in force and protected."""
    write_atomic(folder / _MARKS, f"{canonical_json(marks.model_dump(mode='json'))}\n".encode())


def in_force(folder: Path) -> tuple[Discovery, Marks]:
    """The concepts that are watched, and which of them are protected.

    Raises:
        SettingError: None were found yet.
        IntegrityError: A file is damaged.
    """
    marks = read_marks(folder)
    if marks is None:
        raise SettingError(f"no concepts are watched in {folder}; find some: perdure concepts find DATA")
    return read_card(folder, marks.key), marks


def named(card: Discovery, name: str) -> FoundConcept:
    """The concept of an id, a name, or a part of a name that no other has.

    Raises:
        UnknownNameError: There is none, or several.
    """
    asked = name.strip().casefold()
    exact = [given for given in card.concepts if asked in (given.id.casefold(), given.name.casefold())]
    near = exact or [given for given in card.concepts if asked and asked in given.name.casefold()]
    if len(near) != 1:
        shown = near or card.concepts
        raise UnknownNameError("concept", name, [f"{given.id} ({given.name})" for given in shown])
    return near[0]


def _file(folder: Path, key: str, suffix: str) -> Path:
    return folder / f"{key[:_SHORT]}.{suffix}"


def _check(path: Path, card: Discovery, arrays: tuple[Any, ...]) -> None:
    """Raises: IntegrityError."""
    import numpy as np

    centre, centres, reach, assigned = arrays
    count = len(card.concepts)
    shapes = centres.ndim == 2 and centres.shape == (count, len(centre)) and reach.shape == (count,)
    finite = all(bool(np.isfinite(array).all()) for array in (centre, centres, reach))
    if not (shapes and finite and assigned.ndim == 1 and bool(((assigned >= -1) & (assigned < count)).all())):
        raise IntegrityError(f"{path} does not fit {count} concepts; it is damaged")
