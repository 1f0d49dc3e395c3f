"""Texts of concept sets in JSONL, JSON, CSV and TXT files, with a label, or with how often each occurs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perdure.requests.concept_items import ConceptSource, Found, Outcome, as_text, label_fault, text_digest, text_fault
from perdure.requests.formats import load_json, read_jsonl, read_table, rows_in
from perdure.requests.problems import Place, Problem, Row, refuse_whole
from perdure.requests.readers import BOM, capped, read_bytes
from perdure.requests.task_files import part_named
from perdure.requests.wording import escape, shorten

TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".txt")
TEXT_KEYS = ("text", "sentence", "question", "query", "prompt", "input", "content")
LABEL_KEYS = ("label", "labels", "category", "intent", "class", "target", "output")
WEIGHT_KEYS = ("count", "weight", "weights", "counts", "frequency", "traffic")


def read_texts(files: Mapping[str, Path], *, labelled: bool) -> ConceptSource:
    """The texts in a file for each part, or in one that names its parts.

    Raises:
        RequestError: A file cannot be read at all.
    """
    source = ConceptSource("text", {}, as_text)
    for part, path in files.items():
        name, data = read_bytes(path, (*TEXTS, ".npz"))
        parts = _FORMATS[path.suffix.lower()](data.removeprefix(BOM), name, labelled)
        if len(parts) > 1 and len(files) > 1:
            raise refuse_whole(name, "has parts of its own; name this file instead of its folder")
        for own, rows in parts.items():
            source.take(own if len(parts) > 1 else part, (text_row(row, labelled) for row in capped(rows, name)))
    return source


def text_row(row: Row, labelled: bool) -> Outcome:
    """The text in a row, with its label or its weight."""
    if row.problems:
        return row.problems[0]
    value = row.value
    if isinstance(value, str) and not labelled:
        value = {"text": value}
    if not isinstance(value, Mapping):
        return Problem(row.place, "must be an object with text and label", value=shorten(value))
    given = {str(key).strip().lower(): entry for key, entry in value.items()}
    key = next((key for key in TEXT_KEYS if key in given), "")
    if not key:
        return Problem(row.place, f"has no text; it has {_listed(given)}", "text")
    if fault := text_fault(given[key]):
        return Problem(row.place, fault, key, shorten(given[key]))
    found = Found(row.place, given[key], digest=text_digest(given[key]))
    return with_label(found, given, labelled)


def with_label(row: Found, given: Mapping[str, Any], labelled: bool) -> Outcome:
    """The row with its label, or its weight where there are no labels."""
    if not labelled:
        return _with_weight(row, given)
    key = next((key for key in LABEL_KEYS if key in given), "")
    if not key:
        return Problem(row.place, f"has no label; it has {_listed(given)}", "label")
    label = given[key]
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        return Problem(row.place, "must be the name of a class", key, shorten(label))
    name = str(label).strip()
    fault = label_fault(name)
    return Problem(row.place, fault, key, shorten(label)) if fault else replace(row, label=name)


def _with_weight(row: Found, given: Mapping[str, Any]) -> Outcome:
    key = next((key for key in WEIGHT_KEYS if given.get(key) not in (None, "")), "")
    if not key:
        return row
    try:
        weight = float(given[key])
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 < weight < float("inf"):
        return Problem(row.place, "must be a number above 0", key, shorten(given[key]))
    return replace(row, weight=weight)


def _listed(given: Iterable[str]) -> str:
    return ", ".join(escape(key[:30]) for key in list(given)[:8]) or "nothing"


_Rows = Mapping[str, Iterator[Row]]


def _lines(data: bytes, name: str, labelled: bool) -> _Rows:
    return {"train": read_jsonl(data, name)}


def _value(data: bytes, name: str, labelled: bool) -> _Rows:
    found = load_json(data, name)
    if not isinstance(found, dict):
        return {"train": rows_in(found, name)}
    keys: dict[str | None, str] = {}
    for key in found:
        if (part := part_named(key)) and keys.setdefault(part, key) != key:
            raise refuse_whole(name, f"has {escape(keys[part])} and {escape(key)} for one part; keep one")
    whole = next((key for key in ("data", "rows") if key in found), "")
    if whole or "train" not in keys:
        return {"train": rows_in(found[whole] if whole else found, name)}
    test = keys.get("test") or keys.get("validation")
    parts = {"train": keys["train"], **({"test": test} if test else {})}
    return {part: rows_in(found[key], f"{name} {key}") for part, key in parts.items()}


def _columns(data: bytes, name: str, labelled: bool) -> _Rows:
    def fault(names: Sequence[str]) -> str:
        lowered = [column.lower() for column in names]
        missing = [keys[0] for keys in (TEXT_KEYS, *((LABEL_KEYS,) if labelled else ())) if not {*keys} & {*lowered}]
        return f"the header has {_listed(names)}; it lacks {' and '.join(missing)}" if missing else ""

    return {"train": read_table(data, name, fault, lambda names, cells: dict(zip(names, cells, strict=True)))}


def _plain(data: bytes, name: str, labelled: bool) -> _Rows:
    if labelled:
        raise refuse_whole(name, "is plain text without labels; give JSONL or CSV with text and label")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise refuse_whole(name, f"is not UTF-8: {error.reason} at byte {error.start + 1}") from error
    return {"train": (Row(Place(name, number), line) for number, line in enumerate(lines, 1) if line.strip())}


_FORMATS: dict[str, Callable[[bytes, str, bool], _Rows]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _value,
    ".csv": _columns,
    ".txt": _plain,
}
