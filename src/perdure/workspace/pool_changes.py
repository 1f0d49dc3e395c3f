"""Changes of a pool as versions: the weights of before, and the pool's files as files of the version."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perdure.deltas import Delta
from perdure.errors import RefusedError
from perdure.workspace.contents import Room
from perdure.workspace.pool_folder import flat_name
from perdure.workspace.pools import bring, opened_pool
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.tuning.pool import Pool
    from perdure.workspace.workspace import Workspace

POOLED = "pool"
"""The kind of a recipe that changes a pool."""


def rollback_group(shop: "Workspace", group: str, *, on: "str | Version" = "", actor: str) -> Version:
    """A version whose group answers with the adapter that it had before; all other groups stay.

    Raises:
        WorkspaceError: The version has no pool.
        UnknownNameError: No such group.
        SettingError: The group has no adapter in use.
    """
    parent = _standing(shop, on)
    with opened_pool(shop, parent) as pool:
        left = pool.current(group)
        now = pool.rollback(group)
        served = now.tasks if now else ()
        details = {
            "action": "rollback",
            "group": group,
            "from": left.digest if left else None,
            "to": now.digest if now else None,
            "unserved": [task for task in pool.groups.members(group) if task not in served],
        }
        return _changed(shop, parent, pool, details, actor=actor)


def part_task(shop: "Workspace", task: str, *, on: "str | Version" = "", actor: str) -> Version:
    """A version in which a task has a group of its own, with the adapter that it shared; the group is as before it.

    Raises:
        WorkspaceError: The version has no pool.
        UnknownNameError: No such task.
        SettingError: The task is alone in its group, or there may be no further group.
    """
    parent = _standing(shop, on)
    with opened_pool(shop, parent) as pool:
        old = pool.groups.tasks[task].group if task in pool.groups.tasks else ""
        shared = bring(shop, parent, pool, old) if old else Delta()
        joined = pool.part(task)
        if shared:
            note = f"shared with {old} until {task} was parted from it"
            pool.put(joined.group, shared, task, transposed=is_transposed(shop, parent), note=note)
        now = pool.current(old)
        served = now.tasks if now else ()
        details = {
            "action": "part",
            "part": task,
            "from": old,
            "group": joined.group,
            "unserved": [each for each in pool.groups.members(old) if each not in served],
        }
        return _changed(shop, parent, pool, details, actor=actor)


def _standing(shop: "Workspace", on: "str | Version") -> Version:
    parent = shop.version(on) if on else shop.newest()
    rejected = shop.rejected(parent)
    if rejected is not None:
        raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; change another version")
    return parent


def _changed(shop: "Workspace", parent: Version, pool: "Pool", details: Mapping[str, Any], *, actor: str) -> Version:
    notes = {"facts": [], "pool": {**details, "growth": asdict(pool.growth_report())}}
    recipe = {"kind": POOLED, "restraint": "none", "restraint_config": {"kind": "none"}, **details}
    return commit_pool(shop, parent, pool, recipe, notes, actor=actor)


def commit_pool(
    shop: "Workspace", parent: Version, pool: "Pool", recipe: Mapping[str, Any], notes: Mapping[str, Any], *, actor: str
) -> Version:
    """The version with the parent's weights and the pool as its folder has it; files of before cost nothing."""
    paths = [path for path in sorted(pool.folder.rglob("*")) if path.is_file()]
    files = {flat_name(path.relative_to(pool.folder).as_posix()): path.read_bytes() for path in paths}
    shop.progress("storing the version", 0, 1)
    version = shop.archive.commit(
        parent, Delta(), solved=Delta(notes=dict(notes)), recipe=recipe, actor=actor, room=Room(files=files)
    )
    shop.progress("storing the version", 1, 1)
    return version


def is_transposed(shop: "Workspace", version: Version) -> bool:
    """Whether the model's projections are stored [I, O], as GPT-2's are."""
    return any(matrix.transposed for matrix in shop.layout(version).mlp_matrices[0])
