"""The versions as a drawing: each stands on the one that it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.workspace import Version

_STEP, _LANE, _MARGIN = 76, 46, 30


@dataclass(frozen=True)
class Node:
    """One version: where it stands, its name, its standing, the aliases that hold it."""

    x: int
    y: int
    name: str
    status: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The drawing: its size, the nodes, and the lines between them as paths."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    edges: tuple[str, ...]


def draw(versions: Sequence[Version], aliases: Mapping[str, Version]) -> Graph:
    """The drawing of versions, oldest first, from left to right; a second child of a version opens a lane below."""
    lanes, free = _lanes(versions), {}
    for place, version in enumerate(versions):
        held = tuple(alias for alias, found in aliases.items() if found.id == version.id)
        x, y = _MARGIN + place * _STEP, _MARGIN + lanes[version.id] * _LANE
        free[version.id] = Node(x, y, version.name, version.status, held)
    edges = [
        _path(free[version.parent], free[version.id])
        for version in versions
        if version.parent is not None and version.parent in free
    ]
    depth = max(lanes.values(), default=0)
    width = 2 * _MARGIN + _STEP * max(0, len(versions) - 1) + _STEP
    return Graph(width, 2 * _MARGIN + _LANE * depth + 24, tuple(free.values()), tuple(edges))


def _lanes(versions: Sequence[Version]) -> dict[str, int]:
    """A lane for each version: its parent's for the first child, a new one for the others."""
    lanes: dict[str, int] = {}
    continued: set[str] = set()
    for version in versions:
        parent = version.parent
        if parent in lanes and parent not in continued:
            lanes[version.id] = lanes[parent]
            continued.add(parent)
        else:
            lanes[version.id] = max(lanes.values(), default=-1) + 1
    return lanes


def _path(start: Node, end: Node) -> str:
    if start.y == end.y:
        return f"M{start.x} {start.y}H{end.x}"
    bend = start.x + _STEP // 2
    return f"M{start.x} {start.y}C{bend} {start.y} {bend} {end.y} {min(end.x, start.x + _STEP)} {end.y}H{end.x}"
