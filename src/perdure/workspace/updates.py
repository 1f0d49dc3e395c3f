"""The accumulated update of a lineage: what editors solved, what the restraint made of it, and the next step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.deltas import Change, Delta, difference, largest_singular_value
from perdure.deltas.restraint import restrained_step
from perdure.errors import SettingError
from perdure.registry import restraints
from perdure.workspace.archive import Archive
from perdure.workspace.records import Version

Restraint = tuple[str, Mapping[str, Any]]
"""The name of a restraint and its settings."""


def dense_names(version: Version) -> list[str]:
    """Tensors that this version changed without factors."""
    return list(version.manifest.recipe.get("dense", ()))


def solved_since_base(archive: Archive, version: Version) -> Delta:
    """The sum of what was solved along the lineage, before any restraint, with all keys.

    Tensors that were ever changed densely stand as the plain difference of their weights to the base's.
    """
    line = archive.lineage(version)
    total, dense = Delta(), set[str]()
    for step in line[1:]:
        total = total + archive.solved(step)
        dense.update(dense_names(step))
    changes: dict[str, Change] = {name: part for name, part in total.changes.items() if name not in dense}
    if dense:
        changes |= weights_moved(archive, line[0], version, sorted(dense)).changes
    return Delta(changes, total.keys)


def weights_moved(archive: Archive, first: Version, second: Version, names: list[str]) -> Delta:
    """The dense difference of the named tensors between two versions."""
    return difference(archive.tensors(first, names), archive.tensors(second, names))


def applied_since_base(archive: Archive, version: Version) -> Delta:
    """The accumulated update as the version's weights carry it: the last restraint on what had been solved then."""
    line = archive.lineage(version)
    last = max((place for place, step in enumerate(line) if _restraint(step)[0] != "none"), default=0)
    total = solved_since_base(archive, line[last])
    if last:
        total = restrain(archive, line[0], total, *_restraint(line[last]))
    for step in line[last + 1 :]:
        total = total + archive.solved(step)
    dense = {name for step in line[1:] for name in dense_names(step)}
    if dense:
        moved = weights_moved(archive, line[0], version, sorted(dense)).changes
        total = Delta({**{n: c for n, c in total.changes.items() if n not in dense}, **moved}, total.keys)
    return total


def restrain(archive: Archive, base: Version, total: Delta, name: str, config: Mapping[str, Any]) -> Delta:
    """The accumulated update under a registered restraint, with σ* of the base remembered by tensor hash."""
    method = restraints.get(name)
    matrices = [tensor for tensor, change in total.changes.items() if len(change.shape) == 2]
    ceilings = {tensor: base_ceiling(archive, base, tensor) for tensor in matrices} if name != "none" else {}
    zero = [tensor for tensor, ceiling in ceilings.items() if not ceiling > 0]
    if zero:
        raise SettingError(f"{zero[0]} is zero in the base, so nothing scales its restraint; use --restraint none")
    restrained: Delta = method.call(total, ceilings, method.config.model_validate(config))
    return restrained


def next_step(archive: Archive, parent: Version, solved: Delta, name: str, config: Mapping[str, Any]) -> Delta:
    """What to add to the parent's weights, given what an editor solved on top of it."""
    if name == "none" or not solved:
        return solved
    before = solved_since_base(archive, parent), applied_since_base(archive, parent)
    return step_from(archive, archive.lineage(parent)[0], before, solved, (name, config))


def step_from(
    archive: Archive, base: Version, before: tuple[Delta, Delta], solved: Delta, restraint: Restraint
) -> Delta:
    """What to add to weights that differ from the base by what was solved before, as far as it was applied.

    Args:
        archive: Where the base is.
        base: The base of the lineage.
        before: What was solved since the base, and what of it the weights carry.
        solved: What an editor solved on them.
        restraint: The restraint of the sum.
    """
    if restraint[0] == "none" or not solved:
        return solved
    return restrained_step(solved, before[1], restrain(archive, base, before[0] + solved, *restraint))


def next_steps(archive: Archive, parent: Version, solved: Sequence[Delta], kinds: Sequence[Restraint]) -> Delta:
    """What to add to the parent's weights, given what several edits solved on top of it, each under its restraint.

    A restraint works on all that was solved up to then, so the last one says it all; what was solved later
    without one is added as it is.
    """
    last = last_restrained(kinds)
    restrained, free = sum_of(solved[: last + 1]), sum_of(solved[last + 1 :])
    return (next_step(archive, parent, restrained, *kinds[last]) if last >= 0 else Delta()) + free


def last_restrained(kinds: Sequence[Restraint]) -> int:
    """The place of the last edit with a restraint; -1 without any."""
    return max((place for place, (name, _) in enumerate(kinds) if name != "none"), default=-1)


def sum_of(deltas: Iterable[Delta]) -> Delta:
    """The deltas added up, in order."""
    return sum(deltas, start=Delta())


def base_ceiling(archive: Archive, base: Version, tensor: str) -> float:
    """σ_max of a base matrix, computed once per tensor hash."""
    key = base.manifest.tensors[tensor].hash
    known = archive.recall("sigma_max", key)
    if known is None:
        weight = archive.tensors(base, [tensor])[tensor]
        known = {"value": largest_singular_value(weight)}
        archive.remember("sigma_max", key, known)
    return float(known["value"])


def _restraint(version: Version) -> tuple[str, Mapping[str, Any]]:
    recipe = version.manifest.recipe
    return str(recipe.get("restraint", "none")), recipe.get("restraint_config", {"kind": "none"})
