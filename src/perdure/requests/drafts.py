"""Rows unpacked but not yet judged: drafts of facts, and what reading any shape needs.

A reader renames and unpacks; what it does not understand it passes on, and the schema of `Fact` refuses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.requests.facts import Fact

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """A fact before it is checked, or the questions that follow from several facts together.

    Attributes:
        values: By the field names of `Fact`.
        names: What the file calls a field, such as "portability", or a place in one, such as
            "portability[0].answer".
    """

    values: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)


class MisshapenError(ValueError):
    """A part of a row that its shape cannot unpack."""

    def __init__(self, where: str, value: object, reason: str) -> None:
        super().__init__(reason)
        self.where, self.value = where, value


def _nothing(_row: Raw) -> Draft:
    return Draft({})


@dataclass(frozen=True)
class Shape:
    """One way to write a fact down.

    Attributes:
        name: For messages.
        fits: Whether a row is of this shape.
        read: The drafts that a row holds.
        reads: The keys that it looks at; empty for the own shapes, which refuse other keys themselves.
        shared: A draft of the questions (`portability`) that need every fact of the row.
    """

    name: str
    fits: Callable[[Raw], bool]
    read: Callable[[Raw], list[Draft]]
    reads: frozenset[str] = frozenset()
    shared: Callable[[Raw], Draft] = _nothing

    def ignored(self, row: Raw) -> list[str]:
        """Keys of `row` that perdure knows in its own shape and that this one would silently drop."""
        return [key for key in row if key in _OWN and key not in self.reads] if self.reads else []


_OWN = frozenset(Fact.model_fields) - {"source"}


def pick(row: Raw, aliases: Mapping[str, tuple[str, ...]], prefix: str = "") -> Draft:
    """A draft that takes each field from the first of its aliases that `row` has."""
    chosen = {own: next((key for key in keys if key in row), keys[0]) for own, keys in aliases.items()}
    values = {own: row[key] for own, key in chosen.items() if key in row}
    return Draft(values, {own: prefix + key for own, key in chosen.items()})


def listed(value: Any) -> Any:
    """One text as a list of one, null as an empty list, anything else as it is."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def first(value: Any) -> Any:
    """The first of a list, or of its first list; null for an empty one."""
    for _ in range(2):
        if isinstance(value, list | tuple):
            value = value[0] if value else None
    return value


def answers(value: Any) -> dict[str, Any]:
    """An answer, and as aliases all other answers that a list, or a list of lists, allows."""
    if not isinstance(value, list | tuple):
        return {"answer": value}
    flat = [entry for part in value for entry in (part if isinstance(part, list | tuple) else [part])]
    return {"answer": flat[0] if flat else None, "aliases": flat[1:]}
