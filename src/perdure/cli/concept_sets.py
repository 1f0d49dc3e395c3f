"""perdure concepts add, sets and drop: labelled sets that every report probes."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import note, say, say_json, table
from perdure.cli.options import Actor, AsJson, Folder, opened


def add_to(group: typer.Typer) -> None:
    """Add the commands of this file to those on concepts."""
    group.command("add")(add)
    group.command("sets")(list_sets)
    group.command("drop")(drop)


def add(
    data: Annotated[
        str, typer.Argument(help="A labelled set: a folder of images, NPZ, JSONL, CSV, or a hub data set.")
    ],
    test: Annotated[str, typer.Option(help="Where its test part is, when that is a place of its own.")] = "",
    name: Annotated[str | None, typer.Option(help="What reports call it.", show_default="the file's name")] = None,
    share: Annotated[float, typer.Option(help="Share of each class that becomes test, where there is no part.")] = 0.2,
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Have every report probe a labelled set: what an update unlearns of it is seen, and gated.

    The data stays where it is; it is read again for each report.

    Examples:

        perdure concepts add signs.npz

        perdure concepts add train.csv --test test.csv --name intents
    """
    from perdure.requests.concepts import read_probe
    from perdure.workspace.opened import current_user
    from perdure.workspace.probe_sets import add_set, entry_of

    with opened(workspace, quiet=json) as shop:
        probe = read_probe(data, test=test or None, name=name, test_share=share, progress=shop.progress)
        added = add_set(shop, entry_of(probe, data, test, test_share=share), actor=actor or current_user())
    for line in () if json else probe.notes:
        note(line, style="dim")
    if json:
        say_json({"set": probe.name, "digest": probe.digest, "added": added})
        return
    size = (
        f"{len(probe.classes)} classes, {len(probe.train)} {probe.side}s to learn from, {len(probe.test)} to be asked"
    )
    say(f"{probe.name}: {size}. {'Every report probes it from now on.' if added else 'It was there already.'}")


def list_sets(workspace: Folder = Path(), json: AsJson = False) -> None:
    """List the labelled sets that every report probes.

    Example: perdure concepts sets
    """
    from perdure.workspace.probe_sets import probe_sets

    with opened(workspace, quiet=True) as shop:
        found = probe_sets(shop)
    if json:
        say_json([each.model_dump(mode="json") for each in found])
        return
    table("Labelled sets", ["set", "of", "where"], [[each.name, f"{each.side}s", each.path] for each in found])


def drop(
    name: Annotated[str, typer.Argument(help="The set's name, as `perdure concepts sets` shows it.")],
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Have a labelled set probed no longer; takes who may change the policy.

    Example: perdure concepts drop signs
    """
    from perdure.workspace.opened import current_user
    from perdure.workspace.probe_sets import drop_set

    with opened(workspace, quiet=True) as shop:
        drop_set(shop, name, actor=actor or current_user())
    if json:
        say_json({"dropped": name})
        return
    say(f"{name} is probed no longer.")
