"""perdure pool."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import percent, say, say_json, table
from perdure.cli.options import Actor, AsJson, Device, Folder, opened

if TYPE_CHECKING:
    from perdure.measuring.pooled import PoolGroup, PoolMeasures
    from perdure.workspace import Version, Workspace

_SHOWN = 5  # routed items of the general suite
Of = Annotated[str, typer.Option("--version", "-v", help="The version that has the pool.")]
On = Annotated[str, typer.Option("--on", help="The version to change.", show_default="the newest not rejected")]
Measure = Annotated[bool, typer.Option("--measure/--no-measure", help="Measure the candidate afterwards.")]

group = typer.Typer(
    no_args_is_help=True, help="The pool: one adapter for tasks of like instructions, on weights that stay as they are."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group, name="pool", rich_help_panel="Change")


@group.command("list")
def list_groups(version: Of = "latest", workspace: Folder = Path(), json: AsJson = False) -> None:
    """List the groups of a version's pool: their tasks, and what their adapters add to the base.

    Example: perdure pool list
    """
    from perdure.workspace.pool_measures import groups_of
    from perdure.workspace.pools import opened_pool

    with opened(workspace, quiet=True) as shop:
        found = shop.version(version)
        with opened_pool(shop, found) as pool:
            groups, growth, log = groups_of(pool), pool.growth_report(), (*pool.groups.log, *pool.log)
            threshold, fallback = pool.threshold, pool.routing.fallback
    if json:
        rows = [each.model_dump(mode="json") for each in groups]
        said = {"threshold": threshold, "fallback": fallback, "kept": growth.kept, "share": growth.share}
        say_json({"version": found.name, "groups": rows, **said, "log": log})
        return
    _say_groups(f"Pool of {found.name}", groups)
    say(
        f"In use {_size(growth.size)}, {percent(growth.share)} of the base; with earlier versions {_size(growth.kept)}."
    )
    say(f"A group answers from similarity {threshold:.3f} on; else the {fallback} does.", style="dim")


@group.command("route")
def route(
    text: Annotated[str, typer.Argument(help="A request, as it would be asked.")],
    version: Of = "latest",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Say which group would answer a request, how alike it is, and why. No model is run.

    Example: perdure pool route "Decide whether the customer may return the item."
    """
    from perdure.workspace.pools import routes_of

    with opened(workspace, quiet=True) as shop:
        found = shop.version(version)
        [chosen] = routes_of(shop, found, [text])
    if json:
        say_json({"version": found.name, **vars(chosen)})
        return
    say(chosen.reason)


@group.command("rollback")
def rollback(
    name: Annotated[str, typer.Argument(metavar="GROUP", help="A group, such as g1.")],
    on: On = "",
    measure: Measure = True,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Give a group the adapter that it had before, in a new candidate version; all other groups stay.

    Example: perdure pool rollback g1
    """
    from perdure.workspace.opened import current_user
    from perdure.workspace.pool_changes import rollback_group

    with opened(workspace, quiet=json, device=device) as shop:
        made = rollback_group(shop, name, on=on, actor=actor or current_user())
        _tell(shop, made, measure=measure, actor=actor, json=json)


@group.command("part")
def part(
    task: Annotated[str, typer.Argument(help="A task that shares its group.")],
    on: On = "",
    measure: Measure = True,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Undo a merge, in a new candidate version: the group is as before the task, which gets the shared adapter alone.

    Example: perdure pool part warranty
    """
    from perdure.workspace.opened import current_user
    from perdure.workspace.pool_changes import part_task

    with opened(workspace, quiet=json, device=device) as shop:
        made = part_task(shop, task, on=on, actor=actor or current_user())
        _tell(shop, made, measure=measure, actor=actor, json=json)


def pool_words(recipe: Mapping[str, Any]) -> str:
    """What a version changed in its pool, in a few words."""
    group, action = recipe["group"], recipe["action"]
    if action == "tune":
        return f"{group}, task {recipe['task']['name']}"
    return f"{recipe['part']} parted into {group}" if action == "part" else f"{group} rolled back"


def say_pool(pool: "PoolMeasures") -> None:
    """Print the pool's part of a report."""
    _say_groups("Pool", pool.groups)
    if pool.reason:
        say(f"{pool.reason[0].upper()}{pool.reason[1:]}.")
    back = pool.general - len(pool.routed)
    say(f"Of {pool.general} items of the general suite, the base answers {back} and groups answer {len(pool.routed)}.")
    for item in pool.routed[:_SHOWN]:
        say(f"{item.group} answers, similarity {item.similarity:.3f}: {item.part}: {item.item}", style="dim")


def _tell(shop: "Workspace", version: "Version", *, measure: bool, actor: str, json: bool) -> None:
    report = shop.measure(version, actor=actor) if measure else None
    recipe = version.manifest.recipe
    if json:
        found = {"version": version.name, "id": version.id, "recipe": recipe}
        say_json({**found, "report": report and report.model_dump(mode="json")})
        return
    say(f"{version.name}: {pool_words(recipe)}; all other groups and the weights are as before.")
    if recipe["unserved"]:
        say(f"No adapter answers {', '.join(recipe['unserved'])} now; the base does, until perdure tune --pool.")
    if report is not None:
        from perdure.cli.look import say_report

        say_report(report)


def _say_groups(title: str, groups: "tuple[PoolGroup, ...]") -> None:
    rows = [
        [
            each.name,
            ", ".join(f"{task} (base answers)" if task in each.unserved else task for task in each.tasks),
            str(each.versions),
            f"{each.parameters:,}",
            _size(each.size),
            percent(each.share),
        ]
        for each in groups
    ]
    table(title, ["group", "tasks", "versions", "parameters", "size", "of the base"], rows)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
