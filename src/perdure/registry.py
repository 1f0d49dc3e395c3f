"""Registries of methods: a decorator puts a method in, a name finds it.

A registry reads its own room on first look-up, so a new method is one file in that room and no
central list. Third parties add theirs through an entry point of the group `perdure.<plural>`:

    [project.entry-points."perdure.editors"]
    mine = "my_package.my_editor"
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import BaseModel

from perdure.errors import UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """One registered method: its name, its callable, its settings and its source.

    Attributes:
        kind: The registry's noun, such as "editor".
        name: The name users type.
        call: The function itself.
        config: The frozen pydantic model of its settings.
        paper: Where the method was published.
        summary: The first line of the function's docstring.
    """

    kind: str
    name: str
    call: Callable[..., Any]
    config: type[BaseModel]
    paper: str
    summary: str


class Registry:
    """The methods of one kind, found by name."""

    def __init__(self, kind: str, room: str) -> None:
        self.kind = kind
        self._room = room
        self._methods: dict[str, Method] = {}
        self._read = False

    def register(self, name: str, *, config: type[BaseModel], paper: str) -> Callable[[F], F]:
        """Put the decorated function into this registry under `name`.

        Raises:
            ValueError: Another function already has this name.
        """

        def put(function: F) -> F:
            taken = self._methods.get(name)
            if taken is not None and taken.call.__module__ != function.__module__:
                raise ValueError(f"{self.kind} {name!r} is already registered by {taken.call.__module__}")
            summary = (function.__doc__ or "").strip().partition("\n")[0]
            self._methods[name] = Method(self.kind, name, function, config, paper, summary)
            return function

        return put

    def get(self, name: str) -> Method:
        """Find a method by name.

        Raises:
            UnknownNameError: No such method; the message lists the known ones.
        """
        self._read_once()
        if name not in self._methods:
            raise UnknownNameError(self.kind, name, self._methods)
        return self._methods[name]

    def __iter__(self) -> Iterator[Method]:
        self._read_once()
        return iter(sorted(self._methods.values(), key=lambda method: method.name))

    def _read_once(self) -> None:
        if self._read:
            return
        self._read = True
        room = importlib.import_module(self._room)
        for module in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"{self._room}.{module.name}")
        for point in entry_points(group=f"perdure.{self.kind}s"):
            point.load()


editors = Registry("editor", "perdure.editing")
restraints = Registry("restraint", "perdure.deltas")
regularizers = Registry("regularizer", "perdure.tuning.regularizers")
measures = Registry("measure", "perdure.measuring")
