"""Texts and images of a concept set, read one at a time; each with its place and a digest of its content.

Shape suffixes: N rows, H and W of an image, C channels.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from perdure.content import digest_bytes, digest_json
from perdure.errors import RequestError
from perdure.pictures import handle_name, open_picture
from perdure.requests.problems import Place, Problem
from perdure.requests.wording import escape

Side = Literal["image", "text"]
"""What an item is."""
TEXT_LIMIT = 200_000
LABEL_LIMIT = 200


@dataclass(frozen=True, eq=False)
class Items(Sequence[Any]):
    """Texts or images: a text, an image of Pillow in RGB, or uint8 [H, W, C] or [H, W], opened when asked for.

    Attributes:
        handles: What is opened: a text, a path, the bytes of a picture file, a row of an array.
        places: Where each stands, for people.
        digests: The identity of each item's content: of a picture its pixels, whatever its file format.
        opened: Makes the item of a handle.
    """

    handles: tuple[Any, ...]
    places: tuple[str, ...]
    digests: tuple[str, ...]
    opened: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.handles)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.opened(handle) for handle in self.handles[index]]
        return self.opened(self.handles[index])

    def select(self, rows: Iterable[int]) -> "Items":
        """These rows, in this order."""
        chosen = [int(row) for row in rows]
        return Items(
            tuple(self.handles[row] for row in chosen),
            tuple(self.places[row] for row in chosen),
            tuple(self.digests[row] for row in chosen),
            self.opened,
        )

    @property
    def digest(self) -> str:
        """The identity of all items in their order."""
        return digest_json(self.digests)


@dataclass(frozen=True)
class Found:
    """An item as a reader found it.

    Attributes:
        place: Where it stands.
        handle: What `Items` opens.
        label: The name of its class; empty where there are no labels.
        digest: The identity of its content.
        weight: How often it occurs.
    """

    place: Place
    handle: Any
    label: str = ""
    digest: str = ""
    weight: float = 1.0


@dataclass
class ConceptSource:
    """What a reader found, before rows are held against each other.

    Attributes:
        side: What the items are.
        parts: Rows by part, `train` and `test`; those of a source without parts are all train.
        opened: Makes an item of a handle.
        problems: Rows that cannot be used.
        notes: What was not read.
    """

    side: Side
    parts: dict[str, list[Found]]
    opened: Callable[[Any], Any]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, part: str, outcomes: Iterable["Outcome"]) -> None:
        """Add a part: the rows that can be used, and the problems of the others."""
        rows = self.parts.setdefault(part, [])
        for outcome in outcomes:
            if isinstance(outcome, Problem):
                self.problems.append(outcome)
            else:
                rows.append(outcome)


Outcome = Found | Problem
"""A row, or why it cannot be used."""


def items_of(found: Sequence[Found], opened: Callable[[Any], Any]) -> Items:
    """The items of what was found."""
    handles = tuple(row.handle for row in found)
    return Items(handles, tuple(str(row.place) for row in found), tuple(row.digest for row in found), opened)


def text_fault(text: object) -> str:
    """Why something cannot be a text of a concept set; empty when it can."""
    if not isinstance(text, str):
        return "must be a text"
    if not text.strip():
        return "is blank"
    if len(text) > TEXT_LIMIT:
        return f"has {len(text)} characters; at most {TEXT_LIMIT} are allowed"
    return _SURROGATE if _has_surrogate(text) else ""


def label_fault(label: str) -> str:
    """Why something cannot be the name of a class; empty when it can."""
    if not label:
        return "the label is blank"
    if len(label) > LABEL_LIMIT:
        return f"the label has {len(label)} characters; at most {LABEL_LIMIT} are allowed"
    return f"the label {_SURROGATE}" if _has_surrogate(label) else ""


_SURROGATE = "holds half of a surrogate pair, which is no character"


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def as_text(handle: str) -> str:
    """The text that a handle is."""
    return handle


def text_digest(text: str) -> str:
    """The identity of a text."""
    return digest_bytes(text.encode())


def as_array(handle: np.ndarray) -> np.ndarray:
    """The row of an array that a handle is, [H, W, C] or [H, W]."""
    return handle


def array_digest(pixels: np.ndarray) -> str:
    """The identity of an image in an array: its shape and its bytes."""
    found = hashlib.sha256(f"{list(pixels.shape)}\n".encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def checked_picture(row: Found) -> Outcome:
    """A picture with the digest of its pixels, decoded once to the end; or why it or its label cannot be used."""
    if row.label and (fault := label_fault(row.label)):
        return Problem(row.place, fault)
    try:
        picture = open_picture(row.handle)
    except RequestError as error:
        return Problem(row.place, escape(str(error).removeprefix(f"{handle_name(row.handle)} ")))
    return replace(row, digest=digest_bytes(f"{picture.size}\n".encode() + picture.tobytes()))


def require_pillow() -> None:
    """Check that images can be read.

    Raises:
        RequestError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise RequestError("images need Pillow; install it with: pip install 'perdure[images]'")
