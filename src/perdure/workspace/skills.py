"""Skills of versions: what became of them between two, kept in the workspace and shown by later reports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.measuring.skill_comparison import Bench, Side, compare_skills, read_comparison
from perdure.measuring.skills import SkillMeasures
from perdure.requests.functions import Function
from perdure.vectors import VectorConfig

if TYPE_CHECKING:
    from pathlib import Path

    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace

_KIND = "skills"


def side_of(shop: "Workspace", version: "Version") -> Side:
    """A version as one of the models that are compared.

    Raises:
        RefusedError: It is an encoder.
    """
    shop.require_text("a skill")
    return Side(version.name, version.id, lambda: shop.load(version))


def bench_of(shop: "Workspace", config: VectorConfig) -> Bench:
    """The settings, with the workspace's folder for what is found."""
    return Bench(config, _folder(shop), shop.progress)


def compare_versions(
    shop: "Workspace", before: "Version", after: "Version", functions: Sequence[Function], config: VectorConfig
) -> SkillMeasures:
    """What became of skills between two versions; the latest comparison stands in reports made afterwards."""
    found = compare_skills(side_of(shop, before), side_of(shop, after), functions, bench_of(shop, config))
    shop.archive.remember(_KIND, after.id, {"id": found.id})
    return found


def known_skills(shop: "Workspace", version: "Version") -> SkillMeasures | None:
    """The latest comparison of a version with another one; None if there is none. Nothing is run."""
    latest = shop.archive.recall(_KIND, version.id)
    return read_comparison(_folder(shop), str(latest["id"])) if latest else None


def _folder(shop: "Workspace") -> "Path":
    return shop.folder / "vectors"
