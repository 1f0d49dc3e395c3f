"""A retention suite: what a model is asked before and after an update, from files that anyone can write.

The layout of a folder: `functions/<name>.jsonl`, `facts.jsonl`, `instructions.jsonl`, `passages.jsonl`. A file
that is not there is a part that is not asked. The built-in suite has all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import digest_bytes, digest_json
from perdure.errors import RequestError
from perdure.requests.functions import Line, Pair

_FORMAT = 1  # of how a suite is asked and judged; outcomes of another format do not compare
_Text = Annotated[str, Field(pattern=r"\S", max_length=100_000)]

SHOTS = 10
"""Pairs shown before each question about an in-context function, unless told otherwise."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KnownFact(_Row):
    """A fact of the world that many models know."""

    subject: Line
    prompt: _Text
    answer: Line
    paraphrases: tuple[_Text, ...] = ()
    topic: str = ""


class Instruction(_Row):
    """A plain instruction and the replies that count as right."""

    instruction: _Text
    answers: tuple[Line, ...] = Field(min_length=1)
    match: Literal["exact", "contains"] = "contains"
    topic: str = ""


class HeldOut(_Row):
    """A passage of text that no edit was computed on."""

    text: _Text
    topic: str = ""


_R = TypeVar("_R", bound=BaseModel)


@dataclass(frozen=True)
class Suite:
    """Everything a model is asked besides the facts of an edit.

    Attributes:
        id: The sha256 (hex) of the files' contents.
        functions: From a function's name to its pairs.
    """

    id: str
    functions: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)
    facts: tuple[KnownFact, ...] = ()
    instructions: tuple[Instruction, ...] = ()
    passages: tuple[HeldOut, ...] = ()

    @classmethod
    def open(cls, folder: Path | str) -> "Suite":
        """The suite in a folder.

        Raises:
            RequestError: No such folder, nothing in it, or a line that cannot be read; the message names it.
        """
        if not Path(folder).is_dir():
            raise RequestError(f"{folder} is no folder; a suite is a folder with {_LAYOUT}")
        return _read(Path(folder))

    @classmethod
    def built_in(cls) -> "Suite":
        """The suite that comes with perdure."""
        return _built_in()


def read_known_facts(path: Path) -> tuple[KnownFact, ...]:
    """The facts of one file in the layout of a suite's `facts.jsonl`.

    Raises:
        RequestError: A line cannot be read; the message names it.
    """
    return _rows(path.name, path.read_bytes(), KnownFact)


_LAYOUT = "functions/<name>.jsonl, facts.jsonl, instructions.jsonl or passages.jsonl"


def function_prompts(pairs: Sequence[Pair], shots: int = SHOTS) -> tuple[str, ...]:
    """What a model reads before each output of a function, in the order of the pairs.

    Pairs of the first half are shown before questions of the second half, and the other way round.
    """
    half = len(pairs) // 2
    return (*shown_prompts(pairs[:half], pairs[half:][:shots]), *shown_prompts(pairs[half:], pairs[:half][:shots]))


def shown_prompts(pairs: Sequence[Pair], shots: Sequence[Pair]) -> list[str]:
    """The question of each pair after the shown ones."""
    shown = "".join(f"Q: {shot.input}\nA: {shot.output}\n\n" for shot in shots)
    return [f"{shown}Q: {pair.input}\nA:" for pair in pairs]


@lru_cache(maxsize=1)
def _built_in() -> Suite:
    return _read(resources.files("perdure.measuring") / "suite")


def _read(folder: Traversable) -> Suite:
    names = sorted(part.name for part in (folder / "functions").iterdir()) if (folder / "functions").is_dir() else []
    paths = [f"functions/{name}" for name in names if name.endswith(".jsonl")]
    paths += [name for name in ("facts.jsonl", "instructions.jsonl", "passages.jsonl") if (folder / name).is_file()]
    if not paths:
        raise RequestError(f"{folder} holds no suite; expected {_LAYOUT}")
    contents = {path: folder.joinpath(*path.split("/")).read_bytes() for path in paths}
    digests = {path: digest_bytes(content) for path, content in contents.items()}
    functions = {path[10:-6]: _rows(path, contents[path], Pair) for path in paths if path.startswith("functions/")}
    for name, pairs in functions.items():
        if len(pairs) < 2:
            raise RequestError(f"functions/{name}.jsonl has {len(pairs)} pairs; at least two: one shown, one asked")
    passages = _rows("passages.jsonl", contents.get("passages.jsonl", b""), HeldOut)
    if len(passages) == 1:
        raise RequestError("passages.jsonl has 1 passage; at least two are needed for an interval")
    return Suite(
        id=digest_json({"format": _FORMAT, "files": digests}),
        functions=functions,
        facts=_rows("facts.jsonl", contents.get("facts.jsonl", b""), KnownFact),
        instructions=_rows("instructions.jsonl", contents.get("instructions.jsonl", b""), Instruction),
        passages=passages,
    )


def _rows(path: str, content: bytes, kind: type[_R]) -> tuple[_R, ...]:
    rows = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RequestError(f"{path}:{number}: {where + ': ' if where else ''}{first['msg']}") from error
    return tuple(rows)
