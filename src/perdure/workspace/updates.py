"""The accumulated update of a lineage: what editors solved, what the restraint made of it, and the next step."""

from collections.abc import Mapping
from typing import Any

from perdure.deltas import Change, Delta, difference, largest_singular_value
from perdure.deltas.restraint import restrained_step
from perdure.errors import SettingError
from perdure.registry import restraints
from perdure.workspace.archive import Archive
from perdure.workspace.records import Version


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
    before = applied_since_base(archive, parent)
    total = solved_since_base(archive, parent) + solved
    return restrained_step(solved, before, restrain(archive, archive.lineage(parent)[0], total, name, config))


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
