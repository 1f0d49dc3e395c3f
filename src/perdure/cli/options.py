"""Options that many commands share, and the workspace they open."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import note, progress
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.workspace import Workspace
    from perdure.workspace.rulings import Emergency

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
        shop = Workspace.open(folder, progress=advance, device=device)
        _tell_emergencies(shop)
        before = _last_row(shop)
        yield shop
        if before and _last_row(shop) > before:
            _pass_on(shop.folder, before)


def _last_row(shop: "Workspace") -> int:
    """The number of the ledger's last row; 0 where nobody is to hear of anything, or it cannot be told."""
    if not (shop.folder / "notify.toml").is_file():
        return 0
    with suppress(PerdureError):
        return shop.archive.log(1)[-1].sequence
    return 0


def _pass_on(folder: Path, before: int) -> None:
    """Start a process that sends what the command wrote; nobody waits for it, and it tries again by itself."""
    words = ("notify", "send", "--after", str(before), "--workspace", str(folder.resolve()))
    with suppress(OSError):
        subprocess.Popen(
            [sys.executable, "-m", "perdure", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _tell_emergencies(shop: "Workspace") -> None:
    """Say on stderr, whatever is asked for, that the glass was broken and nobody reviewed it."""
    unseen: list[Emergency] = []
    with suppress(PerdureError):  # damage is named by the command itself, such as verify
        unseen = shop.emergencies(unreviewed=True)
        names = {version.id: version.name for version in shop.archive.versions()} if unseen else {}
    for broken in unseen:
        note(
            f"THE GLASS WAS BROKEN: {broken.actor} let {broken.alias} hold {names[broken.version]} without consent on "
            f"{broken.time[:16]} ({broken.reason}); it ends {broken.expires[:16]} UTC. Nobody reviewed it: "
            f"perdure review {broken.sequence} --as NAME --comment TEXT",
            style="bold red",
        )
