"""How files of facts are written: JSONL, JSON and CSV, turned into rows with their places.

- `.jsonl`, `.ndjson`: one object a line; blank lines are passed over.
- `.json`: a list of objects, or an object whose `facts` or `data` is that list.
- `.csv`: a header with field names, commas, quotes as in RFC 4180. The columns `paraphrases`, `neighbours`
  and `portability` hold several entries separated by ` | `; a question may give its answer as
  `prompt => answer`. Empty cells count as not given. An entry that holds ` | ` itself needs JSONL.

Text is UTF-8, with or without a byte order mark.
"""

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from perdure.requests.facts import Fact
from perdure.requests.problems import ROW_PROBLEMS, Place, Problem, Row, refuse_whole
from perdure.requests.shapes import shape_of
from perdure.requests.wording import escape, name_kind, shorten

Format = Callable[[bytes, str], Iterator[Row]]

LINE_LIMIT = 8 << 20
_DIGITS_LIMIT = 400
_REQUIRED = ("subject", "prompt", "target_new")
_QUESTIONS = ("neighbours", "portability")


class _Repeating(dict[str, Any]):
    """An object in which keys stand more than once."""

    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class _NotJson:
    """Stands where the text held something that is no JSON value, or a number without end."""

    text: str


_HOLDERS = (list, dict, _NotJson)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked = _Repeating(made)
    marked.repeated = _repeated(key for key, _ in pairs)
    return marked


def _repeated(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, count in Counter(names).items() if count > 1)


def _integer(digits: str) -> int | _NotJson:
    return int(digits) if len(digits) <= _DIGITS_LIMIT else _NotJson(f"a number of {len(digits)} digits")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_NotJson, parse_int=_integer)


def _flaws(value: object) -> Iterator[tuple[str, str]]:
    """Field and reason of each thing in a parsed value that JSON does not allow."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, _NotJson):
            yield path, f"{found.text} is not a value that can be used here"
        elif isinstance(found, list):
            waiting += ((f"{path}[{at}]", item) for at, item in enumerate(found) if isinstance(item, _HOLDERS))
        elif isinstance(found, dict):
            if isinstance(found, _Repeating):
                yield path, f"the key {shorten(found.repeated[0])} stands more than once; keep one"
            waiting += (
                (f"{path}.{escape(key[:60])}".lstrip("."), item)
                for key, item in found.items()
                if isinstance(item, _HOLDERS)
            )


def _parsed(data: bytes) -> tuple[Any, str, int]:
    """A JSON value, or the reason why there is none and its line in `data`."""
    try:
        return _DECODER.decode(data.decode()), "", 0
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: {error.reason} 0x{data[error.start]:02X} at byte {error.start + 1}"
        return None, reason, data.count(b"\n", 0, error.start) + 1
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg.removesuffix(' at')}, at column {error.colno}"
        return None, reason, error.lineno
    except RecursionError:
        return None, "is nested too deeply", 1


def row_of(place: Place, value: object) -> Row:
    """A row with a parsed value, and what in it JSON does not allow: NaN, keys that stand twice."""
    flaws = tuple(Problem(place, reason, path) for path, reason in islice(_flaws(value), ROW_PROBLEMS))
    return Row(place, value, flaws)


def _bad(place: Place, reason: str, value: str = "") -> Row:
    return Row(place, problems=(Problem(place, reason, value=value),))


def read_jsonl(data: bytes, file: str) -> Iterator[Row]:
    """Rows of a file with one JSON object a line."""
    if data[:4096].lstrip().split(b"\n", 1)[0].strip() in (b"[", b"{"):
        reason = "has JSON over several lines; put each object on one line, or name the file .json"
        raise refuse_whole(file, reason)
    for number, line in enumerate(io.BytesIO(data), 1):
        place = Place(file, number)
        if len(line) > LINE_LIMIT:
            yield _bad(place, f"the line has {len(line)} bytes; at most {LINE_LIMIT} are allowed")
        elif text := line.strip():
            value, reason, _ = _parsed(text)
            shown = shorten(text.decode(errors="backslashreplace")) if reason else ""
            yield _bad(place, reason, shown) if reason else row_of(place, value)


def read_json(data: bytes, file: str) -> Iterator[Row]:
    """Rows of a file that is one JSON list, or an object that holds one under `facts` or `data`."""
    if not data.strip():
        return
    value = load_json(data, file)
    yield from rows_in(_list_of(value, file) if isinstance(value, dict) else value, file)


def load_json(data: bytes, file: str) -> Any:
    """The JSON value that is a whole file.

    Raises:
        RequestError: It is no JSON, or not UTF-8.
    """
    value, reason, line = _parsed(data)
    if reason:
        raise refuse_whole(file, reason, line)
    return value


def repeated_in(value: object) -> tuple[str, ...]:
    """The keys that stand more than once in a parsed object."""
    return value.repeated if isinstance(value, _Repeating) else ()


def rows_in(value: object, file: str) -> Iterator[Row]:
    """A row for each item of a parsed list.

    Raises:
        RequestError: The value is no list.
    """
    if not isinstance(value, list):
        raise refuse_whole(file, f"must be a list of objects, got {name_kind(value)}")
    for index, item in enumerate(value):
        yield row_of(Place(file, index, "index"), item)


def _list_of(holder: dict[str, Any], file: str) -> object:
    """The list that an object holds under `facts` or `data`."""
    names = [key for key in ("facts", "data") if key in holder]
    if "questions" in holder:
        raise refuse_whole(file, "is one case, with facts and questions; put it in a list, or name the file .jsonl")
    if len(names) != 1 or set(names) & set(repeated_in(holder)):
        reason = "must be a list of objects, or an object with one list called 'facts' or 'data'"
        raise refuse_whole(file, reason)
    return holder[names[0]]


def read_csv(data: bytes, file: str) -> Iterator[Row]:
    """Rows of a file with a header and commas."""
    return read_table(data, file, _header_fault, _object_of)


def read_table(
    data: bytes,
    file: str,
    header_fault: Callable[[Sequence[str]], str],
    object_of: Callable[[Sequence[str], Sequence[str]], Mapping[str, Any]],
) -> Iterator[Row]:
    """Rows of a file with a header and commas.

    Args:
        data: The file.
        file: Its name, for messages.
        header_fault: Why these columns cannot be read; empty when they can.
        object_of: The object that columns and cells are.

    Raises:
        RequestError: The header cannot be used.
    """
    # Bytes that are not UTF-8 become lone surrogates, so that one bad row does not hide the others.
    records = _records(data.decode("utf-8", "surrogateescape"))
    line, header = next(records, (1, []))
    if isinstance(header, str):
        raise refuse_whole(file, header, line)
    names = [name.strip() for name in header]
    if fault := _table_fault(names) or header_fault(names):
        raise refuse_whole(file, fault, line)
    for line, cells in records:
        place = Place(file, line)
        if isinstance(cells, str):
            yield _bad(place, cells)
        elif len(cells) != len(names):
            yield _bad(place, f"has {len(cells)} columns, the header has {len(names)}", shorten(",".join(cells)))
        elif broken := [name for name, cell in zip(names, cells, strict=True) if not _encodes(cell)]:
            yield Row(place, problems=tuple(Problem(place, "is not UTF-8", name) for name in broken))
        else:
            yield Row(place, object_of(names, cells))


def _records(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """The first line and the cells of each record that is not blank, or the reason why it is broken."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"broken CSV: {error}"
            continue
        if cells:
            yield line, cells


def _encodes(cell: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in cell)


def _table_fault(names: Sequence[str]) -> str:
    """Why no table can have these columns; empty when one can."""
    if len(names) == 1 and set(names[0]) & set(";\t"):
        return "the header must separate its columns with commas"
    if repeated := _repeated(names):
        return f"the header names {shorten(repeated[0])} more than once"
    return ""


def _header_fault(names: Sequence[str]) -> str:
    """Why no facts can be read from these columns; empty when they can."""
    if not names:
        return ""
    if shape_of(dict.fromkeys(names)).reads:
        return ""
    known = ", ".join(Fact.model_fields)
    if unknown := [name for name in names if name not in Fact.model_fields]:
        near = difflib.get_close_matches(unknown[0], Fact.model_fields, n=1, cutoff=0.75)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"the header has the unknown column {shorten(unknown[0])}. Known: {known}.{hint}"
    missing = [name for name in _REQUIRED if name not in names]
    return f"the header lacks {', '.join(missing)}. Known columns: {known}" if missing else ""


def _object_of(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """A record as an object: lists split, empty cells null where a field may be missing."""
    row: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        if name == "paraphrases" or name in _QUESTIONS:
            entries = cell.strip().split(" | ") if cell.strip() else []
            row[name] = [_question(entry) for entry in entries] if name in _QUESTIONS else entries
        else:
            row[name] = cell if cell.strip() or name in (*_REQUIRED, "target") else None
    return row


def _question(entry: str) -> dict[str, str]:
    prompt, arrow, answer = entry.partition(" => ")
    return {"prompt": prompt, "answer": answer} if arrow else {"prompt": prompt}


FORMATS: dict[str, Format] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
}
