"""A workspace as it was opened: its folder, its archive, and how versions are named."""

import getpass
import os
from contextlib import suppress
from typing import Any

from perdure.errors import RefusedError, SettingError
from perdure.progress import Progress, silent
from perdure.workspace.archive import Archive
from perdure.workspace.records import Version


def current_user() -> str:
    """Who acts when nobody is named: `$PERDURE_USER`, else the login name.

    Raises:
        SettingError: Neither is known.
    """
    with suppress(KeyError, OSError):  # a container's user need not have a name
        return os.environ.get("PERDURE_USER") or getpass.getuser()
    raise SettingError("nobody is logged in by a name here: say who acts, with --as NAME or in $PERDURE_USER")


class Opened:
    """What every part of a workspace stands on."""

    def __init__(self, archive: Archive, *, progress: Progress = silent, device: str = "cpu") -> None:
        self.archive = archive
        self.folder = archive.folder
        self.progress = progress
        self.device = device
        self._loaded: tuple[str, Any, Any] | None = None
        self._encoder: bool | None = None

    def version(self, ref: "str | Version") -> Version:
        """The version that `ref` names: v3, latest, an alias, or the start of an id."""
        return ref if isinstance(ref, Version) else self.archive.version(ref)

    def newest(self) -> Version:
        """The newest version with nothing rejected in its lineage: what the next edit stands on."""
        found = next((version for version in reversed(self.archive.versions()) if self.rejected(version) is None), None)
        if found is None:
            raise RefusedError("every version stands on one that was rejected: approve one of them again")
        return found

    def rejected(self, version: Version) -> Version | None:
        """The version itself or its nearest ancestor that was rejected, if any."""
        line = reversed(self.archive.lineage(version))
        return next((step for step in line if step.status == "rejected"), None)
