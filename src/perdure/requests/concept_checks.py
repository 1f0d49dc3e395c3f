"""The rows of a concept set against each other: classes, parts, duplicates; every problem found before any is told."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from perdure.requests.concept_items import Found
from perdure.requests.problems import Place, Problem
from perdure.requests.task_checks import tell_count
from perdure.requests.wording import shorten

LEAST = 2  # rows of a class to learn it from

Parts = dict[str, list[Found]]


def split_rows(rows: Sequence[Found], share: float, seed: int) -> Parts:
    """Rows in train and test, each class in the same share, rows of one content in one part.

    A row's place is the hash of the seed and its content, so that another row moves few others. Each class that has
    more than the least for train has at least one content in test. Content with several labels stays in train.

    Args:
        rows: All rows; the parts keep their order.
        share: Which share of each class is test, rounded.
        seed: Another seed gives another split.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        labels[row.digest].add(row.label)
        classes[row.label][row.digest] += 1
    held: set[str] = set()
    for contents in classes.values():
        total = contents.total()
        room = min(max(1, round(share * total)), total - LEAST) if share else 0
        for digest in sorted(contents, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest()):
            if len(labels[digest]) == 1 and contents[digest] <= room:
                held.add(digest)
                room -= contents[digest]
    parts: Parts = {"train": [], "test": []}
    for row in rows:
        parts["test" if row.digest in held else "train"].append(row)
    return parts


def check_parts(parts: Parts, name: str) -> tuple[Parts, list[Problem]]:
    """The parts without what cannot be used, and why: rows in both parts, classes too small or in one part only.

    Args:
        parts: Train and test.
        name: What the set is called in messages.
    """
    tested = {row.digest: row for row in parts["test"]}
    problems = [
        Problem(row.place, f"is also in test ({tested[row.digest].place}); a probe would be tested on what it learnt")
        for row in parts["train"]
        if row.digest in tested
    ]
    train = [row for row in parts["train"] if row.digest not in tested]
    counts = {"train": Counter(row.label for row in train), "test": Counter(row.label for row in parts["test"])}
    bad = {}
    for label in sort_classes(counts["train"] | counts["test"]):
        if reason := _class_fault(counts["train"][label], counts["test"][label]):
            bad[label] = Problem(Place(name), reason, "class", shorten(label))
    kept = {
        part: [row for row in rows if row.label not in bad]
        for part, rows in (("train", train), ("test", parts["test"]))
    }
    left = {row.label for row in kept["train"]}
    problems += bad.values()
    if len(left) < 2:
        problems.append(Problem(Place(name), f"{len(left)} classes can be used; a probe needs at least 2"))
    return kept, problems


def _class_fault(train: int, test: int) -> str:
    if not train:
        return f"is in test ({test} rows) and not in train"
    if train + test <= LEAST or train < LEAST:
        return f"has {train} rows in train and {test} in test; at least {LEAST} and 1 are needed"
    return "" if test else f"is in train ({train} rows) and not in test"


def sort_classes(labels: Iterable[str]) -> list[str]:
    """The names of classes in order: numbers by their size, others by their letters."""
    names = set(labels)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def note_doubles(parts: Parts) -> list[str]:
    """Notes about one content that stands several times in a part, and about content with several labels."""
    labels: dict[str, str] = {}
    contradictions, doubles = [], []
    for rows in parts.values():
        seen: set[str] = set()
        for row in rows:
            if labels.setdefault(row.digest, row.label) != row.label:
                contradictions.append(str(row.place))
            elif row.digest in seen:
                doubles.append(str(row.place))
            seen.add(row.digest)
    return [
        *tell_count("the same item with another label", contradictions),
        *tell_count("the same item several times", doubles),
    ]
