"""The errors that perdure raises on purpose: one root, a few kinds, each with its exit code.

A message says what was given, what is allowed and what to do.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class PerdureError(Exception):
    """The root of every error that perdure raises on purpose.

    Attributes:
        exit_code: What the command line returns for this kind.
    """

    exit_code: ClassVar[int] = 1


class UnknownNameError(PerdureError, ValueError):
    """A name that is not in its registry or list, with the known names and the nearest one."""

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {name!r}. Known: {', '.join(names) or 'none'}.{hint}")


class SettingError(PerdureError, ValueError):
    """A setting or argument outside what is allowed."""

    exit_code = 2


class RequestError(PerdureError, ValueError):
    """Requests (facts, tasks) that cannot be used; carries every problem found.

    Attributes:
        problems: One entry for each bad row, as found by the reader.
    """

    exit_code = 3

    def __init__(self, message: str, problems: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ModelError(PerdureError, ValueError):
    """A model that cannot be loaded, is damaged, or has a structure that is not understood."""

    exit_code = 4


class UnsafeFileError(ModelError):
    """A file that could run code or leave its folder, refused by name."""


class EditError(PerdureError, RuntimeError):
    """A solve or an optimisation that gave no usable change (NaN, singular system)."""

    exit_code = 1


class WorkspaceError(PerdureError, RuntimeError):
    """A workspace that is missing, locked, full or in a state that forbids the operation."""

    exit_code = 5


class RefusedError(PerdureError, RuntimeError):
    """A gate, an approval rule or a role forbids this step."""

    exit_code = 6


class IntegrityError(PerdureError, RuntimeError):
    """Stored bytes that do not have the hash, shape or finiteness they must have."""

    exit_code = 7


class TuneError(PerdureError, RuntimeError):
    """A training that gave no usable change: NaN, no memory left, nothing to learn from."""

    exit_code = 1
