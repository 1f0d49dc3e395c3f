"""In-context functions: lists of inputs and the outputs that a function gives them.

Read are JSON (a list of objects, as Todd et al. publish theirs, or a task of Super-NaturalInstructions), JSON Lines and
CSV; the names of the two columns may be those of the common instruction formats. Text of several lines becomes one.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import digest_json
from perdure.errors import RequestError

_INPUTS = ("input", "question", "prompt", "instruction", "text", "source")
_OUTPUTS = ("output", "answer", "response", "completion", "label", "target", "category")
_LISTS = ("instances", "train", "data", "examples")
_LARGEST = 64 * 2**20
_MOST_PROBLEMS = 20

Line = Annotated[str, Field(pattern=r"^[^\n]*\S[^\n]*$", max_length=2000)]
"""One line of text that is not empty."""


class Pair(BaseModel):
    """One example of an in-context function."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Line
    output: Line


@dataclass(frozen=True)
class Function:
    """What turns inputs into outputs, given by examples.

    Attributes:
        name: What it is called.
        pairs: The examples, each once.
    """

    name: str
    pairs: tuple[Pair, ...]

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the pairs in their order; the name is no part of it."""
        return digest_json([[pair.input, pair.output] for pair in self.pairs])


def read_function(path: Path | str, *, name: str | None = None) -> Function:
    """The function in a file: JSON, JSON Lines or CSV with an input and an output in each row.

    Args:
        path: The file.
        name: What the function is called; the file's name without its ending when not given.

    Raises:
        RequestError: The file cannot be read, or rows are bad; the message lists every bad row with its reason.
    """
    path = Path(path)
    rows = list(_rows(path, _text_of(path)))
    pairs, problems = _checked(rows)
    if problems:
        shown = "\n".join(f"  {path.name}: {problem}" for problem in problems[:_MOST_PROBLEMS])
        more = f"\n  and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise RequestError(f"{len(problems)} bad rows of {len(rows)}:\n{shown}{more}")
    if not pairs:
        raise RequestError(f"{path.name} has no rows; a function needs objects with an input and an output")
    return Function(name or path.stem, pairs)


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise RequestError(f"{path.name} is larger than {_LARGEST >> 20} MB; a few hundred pairs are enough")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path.name} is no UTF-8 text: {error}") from error


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and the row."""
    kind = path.suffix.lower()
    if kind == ".csv":
        table = csv.DictReader(io.StringIO(text), strict=True)
        try:
            for row in table:
                yield f"line {table.line_num}", row
        except csv.Error as error:
            raise RequestError(f"{path.name}, line {table.line_num} is broken CSV: {error}") from error
    elif kind == ".json":
        found = _list_in(path, _parsed(path, "", text))
        yield from ((f"row {number}", row) for number, row in enumerate(found, 1))
    elif kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _parsed(path, f", line {number}", line)
    else:
        raise RequestError(f"{path.name}: .json, .jsonl and .csv are understood; given {kind or 'no ending'}")


def _list_in(path: Path, found: Any) -> list[Any]:
    """The list itself, or the one that an object holds: a task file has its rows under `Instances` or `train`."""
    if isinstance(found, dict):
        inside = {str(key).lower(): value for key, value in found.items()}
        found = next((inside[name] for name in _LISTS if isinstance(inside.get(name), list)), found)
    if not isinstance(found, list):
        raise RequestError(
            f"{path.name} holds {type(found).__name__}; a list of objects is expected, or an object with one under "
            f"{', '.join(_LISTS)}"
        )
    return found


def _parsed(path: Path, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are a ValueError, too
        raise RequestError(f"{path.name}{where} is no JSON: {error}") from error


def _checked(rows: list[tuple[str, Any]]) -> tuple[tuple[Pair, ...], list[str]]:
    pairs: dict[Pair, None] = {}
    problems = []
    for where, row in rows:
        try:
            pairs[_pair(row)] = None
        except (ValidationError, ValueError) as error:
            problems.append(f"{where}: {_reason(error)}")
    return tuple(pairs), problems


def _pair(row: Any) -> Pair:
    if not isinstance(row, Mapping):
        raise ValueError(f"a {type(row).__name__} where an object is expected")
    given = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    return Pair(input=_field(given, _INPUTS), output=_field(given, _OUTPUTS))


def _field(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these columns that is not empty, as one line; of several right outputs the first."""
    given = [row[name] for name in names if row.get(name) not in (None, "", [])]
    if not given:
        raise ValueError(f"no {names[0]} (nor {', '.join(names[1:])}); it has {', '.join(sorted(row)) or 'nothing'}")
    found = given[0][0] if isinstance(given[0], list) else given[0]
    if isinstance(found, bool | list | dict) or found is None:
        raise ValueError(f"its {names[0]} is a {type(found).__name__}; text is expected")
    return " ".join(str(found).split())


def _reason(error: ValidationError | ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{first['loc'][0]} {str(first['input'])[:60]!r} is not one line of 1 to 2000 characters"
    return str(error)
