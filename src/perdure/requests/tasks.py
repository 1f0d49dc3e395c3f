"""Tasks read from files, folders and data sets: checked, without duplicates, in parts that share no answer."""

import os
from dataclasses import replace
from pathlib import Path

from perdure.errors import SettingError
from perdure.requests.examples import Example, Message, Task
from perdure.requests.problems import ADVICE, NOTHING_LEFT, refusal, refuse_whole
from perdure.requests.readers import name_of
from perdure.requests.task_checks import (
    Examples,
    LengthReport,
    Lengths,
    drop_leaks,
    length_report,
    merge_duplicates,
    note_contradictions,
    prompt_key,
    split_off,
    tell_count,
)
from perdure.requests.task_datasets import is_hub_id, is_saved, read_hub, read_saved
from perdure.requests.task_files import PART_NAMES, TASK_FORMATS, TaskSource, is_folder, read_file, read_folder
from perdure.requests.task_rows import example_of, unread_keys
from perdure.requests.wording import escape

__all__ = ["Example", "LengthReport", "Lengths", "Message", "Task", "length_report", "read_task"]

_LEAKS = "taken out of train, also in validation or test"


def read_task(
    path: Path | str,
    *,
    name: str | None = None,
    validation: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
    skip_bad: bool = False,
    images: bool = True,
) -> Task:
    """The checked examples of a file, a folder or a data set, in the shapes of `perdure.requests.task_shapes`.

    Args:
        path: A `.jsonl`, `.ndjson`, `.json` or `.csv` file; a folder with a file for each part; a folder saved by
            `Dataset.save_to_disk`; or, where there is no such path, a data set `owner/name` of the hub.
        name: What the task is called; the name of the file or folder when not given.
        validation: Which share of train becomes validation where the source has none.
        test: The same for test.
        seed: Decides which examples these are.
        skip_bad: Leave bad rows out with a note, instead of refusing all.
        images: Whether rows may name image files beside the source; not where a stranger wrote them.

    Raises:
        RequestError: It cannot be read, a row is bad and `skip_bad` is not set, or nothing is left to train on;
            `.problems` has each reason.
        SettingError: The shares leave nothing for train.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise SettingError(f"validation {validation} and test {test} must be shares from 0 that sum to less than 1")
    given, path = str(path), Path(path)
    source = _source(path, given)
    if not images:
        source = replace(source, folder=None)
    parts, notes = _examples_of(source, name_of(path), skip_bad)
    parts, more = _settled(parts, {"test": test, "validation": validation}, seed)
    if not parts["train"]:
        raise refuse_whole(name_of(path), "nothing is left to train on; " + ("; ".join([*notes, *more]) or "no rows"))
    instructions = {example.instruction for examples in parts.values() for example in examples}
    return Task(
        name=name if name is not None else _called(path),
        instruction=instructions.pop() if len(instructions) == 1 else "",
        **parts,
        notes=(*notes, *more),
    )


def _called(path: Path) -> str:
    """The name of a file without its extension, of a folder or data set whole."""
    whole = path.absolute().name
    return path.stem if path.suffix.lower() in TASK_FORMATS else whole


def _source(path: Path, given: str) -> TaskSource:
    if is_folder(path):
        return read_saved(path) if is_saved(path) else read_folder(path)
    if is_hub_id(given) and not os.path.lexists(path):
        return read_hub(given)
    return read_file(path)


def _examples_of(source: TaskSource, name: str, skip_bad: bool) -> tuple[dict[str, Examples], list[str]]:
    """The examples of each part that the source has, and notes about what was left out."""
    parts, problems = {}, []
    for part, rows in source.parts.items():
        found = []
        for row in rows:
            example, faults = example_of(row, source.folder)
            problems += faults
            if example:
                found.append(example)
        parts[part] = tuple(found)
    left = any(parts.values())
    if problems and (not skip_bad or not left):
        raise refusal(problems, ADVICE if left else NOTHING_LEFT)
    if not left:
        raise refuse_whole(name, "no examples: there is no row to take")
    bad = {problem.place: str(problem) for problem in reversed(problems)}
    unread = [escape(str(key)[:30]) for key in unread_keys(row for rows in source.parts.values() for row in rows)]
    notes = [*tell_count("bad rows, left out", list(bad.values())[::-1]), *tell_count("keys not read", unread)]
    return parts, [*source.notes, *notes]


def _settled(given: dict[str, Examples], shares: dict[str, float], seed: int) -> tuple[dict[str, Examples], list[str]]:
    """All three parts: train without duplicates and leaks, and what is missing split off it."""
    train, notes = merge_duplicates(given.get("train", ()))
    parts: dict[str, Examples] = {"test": (), "validation": (), **given}
    parts["validation"], more = drop_leaks(parts["validation"], parts["test"], "taken out of validation, also in test")
    held = (*parts["test"], *parts["validation"])
    train, leaks = drop_leaks(train, held, _LEAKS)
    missing = {part: share for part, share in shares.items() if share and part not in given}
    parts |= split_off(train, missing, seed, fixed=set(map(prompt_key, held)))
    small = [f"no {part} was split off: there are too few prompts" for part in missing if not parts[part]]
    # A conversation that stayed in train may hold the beginning of one that was split off.
    split = [example for part in missing for example in parts[part]]
    parts["train"], nested = drop_leaks(parts["train"], split, _LEAKS)
    contradictions = note_contradictions(example for part in PART_NAMES for example in parts[part])
    return parts, [*notes, *more, *leaks, *small, *nested, *contradictions]
