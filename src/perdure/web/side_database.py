"""A SQLite file beside the workspace's own, for what is no decision: logins, the queue, traffic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from perdure.errors import WorkspaceError
from perdure.workspace.connections import Connections


class SideDatabase(Connections):
    """One file, brought up to date when it is opened."""

    def __init__(
        self, path: Path, steps: Sequence[Sequence[str]], synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> None:
        """Open the file, or make it.

        Args:
            path: The file.
            steps: What each schema added to the one before, as statements.
            synchronous: FULL: what is written is on the disk; NORMAL: a power cut may take the last moments.

        Raises:
            WorkspaceError: A newer perdure wrote it.
        """
        settings = ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON")
        super().__init__(path, (*settings, "recursive_triggers = ON", "trusted_schema = OFF"))
        self._lay_out(steps)

    def _lay_out(self, steps: Sequence[Sequence[str]]) -> None:
        if int(self.connection().execute("PRAGMA user_version").fetchone()[0]) == len(steps):
            return  # pages open it for a look, also while somebody writes
        with self.transaction() as connection:
            found, newest = int(connection.execute("PRAGMA user_version").fetchone()[0]), len(steps)
            if found > newest:
                raise WorkspaceError(
                    f"{self.path.name} was written by a newer perdure (schema {found}; this one knows up to {newest}). "
                    "Update perdure"
                )
            for statement in (each for step in steps[found:] for each in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {newest}")
