"""Options that many commands share, and the workspace they open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import progress

if TYPE_CHECKING:
    from perdure.workspace import Workspace

Folder = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="PERDURE_WORKSPACE", help="The workspace folder.", show_default=".")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Actor = Annotated[str, typer.Option("--as", envvar="PERDURE_USER", help="Who acts.", show_default="the login name")]
Device = Annotated[str, typer.Option("--device", help="Where models run: cpu, cuda, cuda:1.")]


@contextmanager
def opened(folder: Path, *, quiet: bool = False, device: str = "cpu") -> "Iterator[Workspace]":
    """The workspace, with progress bars while open."""
    from perdure.cli.start import quieten
    from perdure.workspace import Workspace

    quieten()
    with progress(quiet=quiet) as advance:
        yield Workspace.open(folder, progress=advance, device=device)
