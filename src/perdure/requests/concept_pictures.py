"""Images of concept sets in folders: a sub-folder for each class, or train and test that hold those."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from perdure.pictures import open_picture
from perdure.progress import Progress, counting
from perdure.requests.concept_items import ConceptSource, Found, Outcome, checked_picture, require_pillow
from perdure.requests.problems import Place, Problem
from perdure.requests.task_checks import tell_count
from perdure.requests.wording import escape

_THREADS = 4  # Pillow decodes outside the interpreter's lock; each thread holds a whole picture
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_pictures(root: Path, parts: Mapping[str, Path], *, labelled: bool, progress: Progress) -> ConceptSource:
    """The pictures below a folder for each part, each decoded once to see that it can be.

    Args:
        root: What their places are told from.
        parts: A folder for each part.
        labelled: Whether the first sub-folder is the class.
        progress: Told how many were decoded.

    Raises:
        RequestError: Pillow is not installed.
    """
    require_pillow()
    source = ConceptSource("image", {}, open_picture)
    other: list[str] = []
    found = {part: _listed(root, folder, labelled, other) for part, folder in parts.items()}
    done = counting(progress, "reading pictures", sum(map(len, found.values())))
    with ThreadPoolExecutor(
        min(_THREADS, os.cpu_count() or 1)
    ) as pool:  # Pillow decodes outside the interpreter's lock
        for part, rows in found.items():
            source.take(part, pool.map(lambda row: _told(checked_picture(row), done), rows))
    if labelled:
        source.problems += _empty(root, parts, found)
    source.notes += tell_count("files not read", other)
    return source


def _told(outcome: Outcome, done: Callable[[int], None]) -> Outcome:
    done(1)
    return outcome


def _listed(root: Path, folder: Path, labelled: bool, other: list[str]) -> list[Found]:
    """The picture files of a part in order; the names of other files are added to `other`."""
    rows = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if any(step.startswith(".") for step in inside) or not path.is_file():
            continue
        shown = escape(str(path.relative_to(root))[:200])
        if path.suffix.lower() not in PICTURES or (labelled and len(inside) < 2):
            other.append(shown)
        else:
            rows.append(Found(Place(shown), path, inside[0] if labelled else ""))
    return rows


def _empty(root: Path, parts: Mapping[str, Path], found: Mapping[str, list[Found]]) -> list[Problem]:
    """A problem for each sub-folder of a class that holds no pictures."""
    problems = []
    for part, folder in parts.items():
        held = {row.label for row in found[part]}
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path.name not in held:
                shown = escape(str(path.relative_to(root))[:200])
                problems.append(Problem(Place(shown), f"holds no images ({', '.join(PICTURES[:3])} ...)"))
    return problems
