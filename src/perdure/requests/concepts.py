"""Concept sets: labelled images or texts by which it is measured what an encoder recognises; and unlabelled ones.

Shape suffixes: N rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perdure.content import digest_json
from perdure.errors import SettingError
from perdure.progress import Progress, silent
from perdure.requests.concept_checks import LEAST, check_parts, note_doubles, sort_classes, split_rows
from perdure.requests.concept_files import read_source
from perdure.requests.concept_items import ConceptSource, Found, Items, Side, items_of
from perdure.requests.problems import ADVICE, NOTHING_LEFT, refusal, refuse_whole
from perdure.requests.readers import name_of
from perdure.requests.task_checks import tell_count

__all__ = ["Items", "Labelled", "Probe", "Side", "Unlabelled", "read_probe", "read_unlabelled"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Items with their classes.

    Attributes:
        items: Texts or images, opened when asked for.
        labels_N: The index of each item's class, int64.
    """

    items: Items
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: Iterable[int]) -> "Labelled":
        """These rows, in this order."""
        chosen = [int(row) for row in rows]
        return Labelled(self.items.select(chosen), self.labels_N[chosen])

    @property
    def digest(self) -> str:
        """The identity of the items and their classes, in their order."""
        return digest_json([self.items.digests, self.labels_N.tolist()])


@dataclass(frozen=True, eq=False)
class Probe:
    """A labelled set by which it is measured whether an encoder recognises its classes.

    Attributes:
        name: What it is called.
        side: Whether its items are images or texts.
        classes: The names of the classes; `labels_N` are indices into it.
        train: What a probe learns from; every class has two rows at least.
        test: What it is tested on; every class has one row at least.
        notes: What was left out, merged or not read.
    """

    name: str
    side: Side
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The identity of the content: all items, labels and classes; the name is no part of it."""
        return digest_json([self.side, self.classes, self.train.digest, self.test.digest])


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Items without classes, and how often each occurs.

    Attributes:
        name: What the set is called.
        side: Whether its items are images or texts.
        items: Texts or images, opened when asked for; each content once.
        weights_N: How often each occurs, float64; 1 where nothing is known.
        notes: What was left out, merged or not read.
    """

    name: str
    side: Side
    items: Items
    weights_N: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: Iterable[int]) -> "Unlabelled":
        """These rows, in this order."""
        chosen = [int(row) for row in rows]
        return replace(self, items=self.items.select(chosen), weights_N=self.weights_N[chosen])

    @property
    def digest(self) -> str:
        """The identity of the items and how often they occur."""
        return digest_json([self.side, self.items.digests, self.weights_N.tolist()])


def read_probe(
    path: Path | str,
    *,
    test: Path | str | None = None,
    name: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Progress = silent,
) -> Probe:
    """The checked concept set in a folder of images, an NPZ file, a file of texts or a data set.

    Args:
        path: A folder with a sub-folder of images for each class, or with `train` and `test` that hold those; an
            `.npz` file; a `.jsonl`, `.json` or `.csv` file of text and label, or a folder with one for each part; a
            folder saved by `Dataset.save_to_disk`; or, where there is no such path, a data set of the hub.
        test: Where the test part is, when it is a file or folder of its own.
        name: What the set is called; the name of the file or folder when not given.
        test_share: Which share of each class becomes test where the source has none.
        seed: Decides which rows these are.
        skip_bad: Leave bad rows and classes out with a note, instead of refusing all.
        progress: Told how many pictures were read.

    Raises:
        RequestError: It cannot be read, or something in it cannot be used and `skip_bad` is not set; `.problems` has
            every reason.
        SettingError: The share is not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise SettingError(f"test_share {test_share} must lie between 0 and 1")
    path, called = Path(path), name_of(Path(path))
    source = read_source(path, labelled=True, progress=progress)
    if test is not None:
        source = _joined(source, read_source(Path(test), labelled=True, progress=progress), name_of(Path(test)))
    if not any(source.parts.values()) and not source.problems:
        raise refuse_whole(called, "holds no rows")
    parts = source.parts if "test" in source.parts else split_rows(source.parts["train"], test_share, seed)
    kept, problems = check_parts(parts, called)
    problems = [*source.problems, *problems]
    classes = sort_classes(row.label for row in kept["train"])
    if problems and (not skip_bad or len(classes) < LEAST):
        raise refusal(problems, ADVICE if len(classes) >= LEAST else NOTHING_LEFT)
    left_out = tell_count("left out", [str(problem) for problem in problems])
    return Probe(
        name if name is not None else _called(path),
        source.side,
        tuple(classes),
        _labelled(kept["train"], classes, source),
        _labelled(kept["test"], classes, source),
        notes=(*source.notes, *left_out, *note_doubles(kept)),
    )


def _joined(train: ConceptSource, test: ConceptSource, name: str) -> ConceptSource:
    """Two sources as one, all of each being one part."""
    if train.side != test.side:
        raise refuse_whole(name, f"holds {test.side}s, and train holds {train.side}s")
    if "test" in train.parts or "test" in test.parts:
        raise refuse_whole(name, "or what is learnt from has parts of its own; give one of them alone")
    parts = {"train": train.parts["train"], "test": test.parts["train"]}
    both = (train.problems + test.problems, train.notes + test.notes)
    return ConceptSource(train.side, parts, train.opened, *both)


def _labelled(rows: list[Found], classes: list[str], source: ConceptSource) -> Labelled:
    index = {label: number for number, label in enumerate(classes)}
    labels_N = np.array([index[row.label] for row in rows], dtype=np.int64)
    return Labelled(items_of(rows, source.opened), labels_N)


def read_unlabelled(
    path: Path | str, *, name: str | None = None, skip_bad: bool = False, progress: Progress = silent
) -> Unlabelled:
    """The images or texts in a folder, a file or a data set; the same content once, with how often it occurs.

    Args:
        path: A folder of images, at any depth; an `.npz` file with `x`; a `.jsonl`, `.json`, `.csv` or `.txt` file of
            texts, one a row, with `count` or `weight` where it is known; a data set as for `read_probe`.
        name: What the set is called; the name of the file or folder when not given.
        skip_bad: Leave bad rows out with a note, instead of refusing all.
        progress: Told how many pictures were read.

    Raises:
        RequestError: It cannot be read, a row cannot be used and `skip_bad` is not set, or nothing is left;
            `.problems` has every reason.
    """
    path = Path(path)
    source = read_source(path, labelled=False, progress=progress)
    rows = [row for part in source.parts.values() for row in part]
    if source.problems and (not skip_bad or not rows):
        raise refusal(source.problems, ADVICE if rows else NOTHING_LEFT)
    if not rows:
        raise refuse_whole(name_of(path), "holds no images and no texts")
    merged = _merged(rows)
    notes = [*source.notes, *tell_count("left out", [str(problem) for problem in source.problems])]
    if len(merged) < len(rows):
        notes.append(f"the same item several times, counted together: {len(rows) - len(merged)}")
    weights_N = np.array([row.weight for row in merged], dtype=np.float64)
    called = name if name is not None else _called(path)
    return Unlabelled(called, source.side, items_of(merged, source.opened), weights_N, tuple(notes))


def _merged(rows: list[Found]) -> list[Found]:
    kept: dict[str, Found] = {}
    for row in rows:
        first = kept.get(row.digest)
        kept[row.digest] = row if first is None else replace(first, weight=first.weight + row.weight)
    return list(kept.values())


def _called(path: Path) -> str:
    """The name of a file without its extension, of a folder or data set whole."""
    return path.stem if path.is_file() else path.absolute().name
