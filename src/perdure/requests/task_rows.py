"""Rows turned into examples: every fault of a row named at once, images found inside the folder of their file."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from perdure.requests.drafts import MisshapenError
from perdure.requests.examples import ROLES, Example, Message, misplaced
from perdure.requests.problems import ROW_PROBLEMS, Place, Problem, Row
from perdure.requests.task_shapes import IMAGE_KEYS, TASK_SHAPES, ExampleDraft, Turn, task_shape_of
from perdure.requests.wording import escape, name_character, name_kind, shorten

TEXT_LIMIT = 1 << 20
IMAGES_LIMIT = 100
PARTS_LIMIT = 1000
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")

_Fault = tuple[str, object, str]
"""Field, what it holds, reason."""


@dataclass(frozen=True)
class _Said:
    """The content of one turn.

    Attributes:
        text: All text parts, one after the other.
        images: Names of images; None where a part only says that one stands there.
    """

    text: str = ""
    images: tuple[str | None, ...] = ()


def example_of(row: Row, folder: Path | None) -> tuple[Example | None, list[Problem]]:
    """The example in a row, or every reason why there is none.

    Args:
        row: As a reader found it.
        folder: Where the names of images start; None where a data set has no folder.
    """
    if row.problems:
        return None, list(row.problems)
    try:
        draft, images = _draft_of(row.value)
        found = _Reading(draft, images, folder)
        faults = list(islice(found.faults(), ROW_PROBLEMS))
    except MisshapenError as error:
        faults = [(error.where, error.value, str(error))]
    if faults:
        return None, [_problem(row.place, *fault) for fault in faults]
    return found.example(str(row.place)), []


def _problem(place: Place, field: str, value: object, reason: str) -> Problem:
    return Problem(place, reason, escape(field)[:200], "" if reason == "is missing" else shorten(value))


def _draft_of(row: object) -> tuple[ExampleDraft, list[Any]]:
    if not isinstance(row, Mapping):
        raise MisshapenError("", row, f"must be an object, got {name_kind(row)}")
    shape = task_shape_of(row)
    if shape is None:
        known = "; ".join(shape.name for shape in TASK_SHAPES)
        keys = ", ".join(escape(str(key)[:30]) for key in islice(row, 10)) or "nothing"
        raise MisshapenError("", row, f"has {keys}; an example has one of: {known}")
    return shape.read(row), _images_of(row)


def _images_of(row: Mapping[str, Any]) -> list[Any]:
    """The names under `images` or `image`."""
    key = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), "")
    given = row.get(key, [])
    found = given if isinstance(given, list) else [given]
    if len(found) > IMAGES_LIMIT:
        raise MisshapenError(key, given, f"has {len(found)} images; at most {IMAGES_LIMIT} are allowed")
    return found


class _Reading:
    """One draft on its way to an example."""

    def __init__(self, draft: ExampleDraft, images: list[Any], folder: Path | None) -> None:
        self.draft, self.given, self.folder = draft, images, folder
        self.said: list[_Said] = []
        self.placed: list[tuple[str, ...]] = []

    def faults(self) -> Iterator[_Fault]:
        """What is wrong with the draft."""
        for turn in self.draft.turns:
            if not (isinstance(turn.role, str) and turn.role in ROLES):
                yield turn.role_field, turn.role, f"unknown role. Known: {', '.join(ROLES)}"
            yield from self._content_faults(turn)
        answer = self.draft.turns[-1].field if self.draft.turns else ""
        for at, other in enumerate(self.draft.others, 1):
            yield from _text_faults(f"{answer}[{at}]", other)
        yield from self._order_faults()
        yield from self._size_faults()
        yield from self._image_faults()

    def example(self, source: str) -> Example:
        """The example of a draft without faults."""
        turns = zip(self.draft.turns, self.said, self.placed, strict=True)
        messages = tuple(
            Message.model_validate({"role": turn.role, "content": said.text, "images": images})
            for turn, said, images in turns
            if turn.role != "system" or said.text.strip()
        )
        return Example(
            messages=messages,
            plain=self.draft.plain,
            instruction=self.draft.instruction,
            references=tuple(dict.fromkeys([messages[-1].content, *map(str, self.draft.others)])),
            source=source,
        )

    def _content_faults(self, turn: Turn) -> Iterator[_Fault]:
        said, faults = _say(turn)
        self.said.append(said)
        yield from faults
        if faults:
            return
        if said.images and turn.role != "user":
            yield turn.field, turn.content, "has an image; only the user shows images"
        elif turn.role in ("user", "assistant") and not said.text.strip() and not said.images and not self._bare(turn):
            yield turn.field, turn.content, f"the {turn.role}'s text is empty"

    def _bare(self, turn: Turn) -> bool:
        """Whether the row's images stand with this turn, so that it needs no text."""
        return bool(self.given) and turn is self._first_asked()

    def _first_asked(self) -> Turn | None:
        return next((turn for turn in self.draft.turns if turn.role == "user"), None)

    def _order_faults(self) -> Iterator[_Fault]:
        roles = [str(turn.role) for turn in self.draft.turns]
        if set(roles) <= set(ROLES) and (found := misplaced(roles)):
            turn = self.draft.turns[found[0]] if roles else Turn("", [], "messages")
            yield turn.role_field or turn.field, turn.role, found[1]

    def _size_faults(self) -> Iterator[_Fault]:
        texts = [*(said.text for said in self.said), *map(str, self.draft.others)]
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        if size > TEXT_LIMIT:
            yield "", f"{size} bytes", f"the row's texts are too long; at most {TEXT_LIMIT} bytes are allowed"

    def _image_faults(self) -> Iterator[_Fault]:
        """Each turn gets its images; none, or a wrong number of them, are faults."""
        names = [list(said.images) for said in self.said]
        if faults := list(self._fill(names)):
            yield from faults
            return
        for turn, own in zip(self.draft.turns, names, strict=True):
            found = []
            for name in own:
                path, reason = _image_at(name, self.folder)
                found.append(path)
                if reason:
                    yield (turn.field if not self.given else "images"), name, reason
            self.placed.append(tuple(found))

    def _fill(self, names: list[list[Any]]) -> Iterator[_Fault]:
        """The row's images go where parts say that one stands, else to the user's first message."""
        empty = [(at, place) for at, own in enumerate(names) for place, name in enumerate(own) if name is None]
        if empty and len(empty) != len(self.given):
            yield "images", self.given, f"{len(empty)} parts of the messages stand for images"
        elif empty:
            for (at, place), name in zip(empty, self.given, strict=True):
                names[at][place] = name
        elif self.given and (first := self._first_asked()):
            at = self.draft.turns.index(first)
            names[at] = [*self.given, *names[at]]


def _say(turn: Turn) -> tuple[_Said, list[_Fault]]:
    """What a turn says, and what is wrong with it."""
    if not isinstance(turn.content, list):
        faults = list(_text_faults(turn.field, turn.content, blank=True))
        return _Said() if faults else _Said(str(turn.content)), faults
    if len(turn.content) > PARTS_LIMIT:
        return _Said(), [(turn.field, turn.content, f"at most {PARTS_LIMIT} parts are allowed")]
    faults, texts, images = [], [], []
    for at, part in enumerate(turn.content):
        field = f"{turn.field}[{at}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            faults += _text_faults(f"{field}.text", part.get("text"), blank=True)
            texts.append(part.get("text"))
        elif kind == "image":
            images.append(next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None))
        else:
            faults.append((field, part, 'must be {"type": "text", "text": ...} or {"type": "image", "image": FILE}'))
    if len(images) > IMAGES_LIMIT:
        faults.append((turn.field, images, f"at most {IMAGES_LIMIT} images are allowed"))
    return (_Said(), faults) if faults else (_Said("".join(texts), tuple(images)), [])


def _text_faults(field: str, text: object, *, blank: bool = False) -> Iterator[_Fault]:
    if not isinstance(text, str):
        yield field, text, f"must be text in quotes, got {name_kind(text)}"
        return
    if not blank and not text.strip():
        yield field, text, "is empty"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = name_character(text[error.start])
        yield field, text, f"holds {found}, half of a surrogate pair, which is no character"


def _image_at(name: object, folder: Path | None) -> tuple[str, str]:
    """The absolute path of an image, or why it cannot be used."""
    reason = ""
    if not isinstance(name, str) or not name.strip():
        reason = f"must be the name of an image file, got {name_kind(name) if not isinstance(name, str) else 'nothing'}"
    elif _URL.match(name) or name.startswith("//"):
        reason = "is an address; images are not fetched: save the file beside the data and name it"
    elif folder is None:
        reason = "this data set has no folder in which images could stand"
    elif Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name or "\0" in name:
        reason = "must be the name of a file inside the folder of the data, without .. or a leading slash"
    return ("", reason) if reason else _resolved(str(name), folder or Path())


def _resolved(name: str, folder: Path) -> tuple[str, str]:
    try:
        base = folder.resolve()
        found = (base / name).resolve()
        if not found.is_relative_to(base):
            return "", "leads out of the folder of the data"
        return str(found), "" if found.is_file() else "is no regular file in the folder of the data"
    except (OSError, ValueError, RuntimeError) as error:
        return "", f"cannot be looked up: {error}"


def unread_keys(rows: Iterable[Row]) -> list[str]:
    """The keys that the shapes of these rows do not look at."""
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row.value, Mapping) and (shape := task_shape_of(row.value)):
            found.update(dict.fromkeys(shape.unread(row.value)))
    return list(found)
