"""What is kept of all facts that a lineage was ever taught, version by version."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json
from perdure.measuring.course import Cohort, Course
from perdure.measuring.outcomes import Outcomes
from perdure.measuring.sequences import cohorts_of, in_force, knew, knows
from perdure.requests import Fact
from perdure.workspace.pools import asked_through
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


def course_of(shop: "Workspace", line: Sequence[Version], before: Outcomes, after: Outcomes) -> Course | None:
    """The course of the edit that made the last version of a lineage, with all earlier facts asked once more.

    Args:
        shop: The workspace.
        line: The lineage, the base first.
        before: What the parent answered.
        after: What the version answered.
    """
    version = line[-1]
    noted = shop.archive.solved(version).notes.get("course") if version.parent else None
    course = Course.model_validate(noted or {})
    course = course.model_copy(update={"cohorts": (*course.cohorts, *_cohorts(shop, line, before, after))})
    return course if course != Course() else None


def _cohorts(shop: "Workspace", line: Sequence[Version], before: Outcomes, after: Outcomes) -> list[Cohort]:
    """A cohort a version, where there are facts that are older than this one's."""
    taught = {step.name: shop.facts(step) for step in line}
    last = {fact.prompt: name for name, facts in taught.items() for fact in facts}
    groups = {name: [fact for fact in in_force(facts) if last[fact.prompt] == name] for name, facts in taught.items()}
    older = [fact for name, facts in groups.items() if name != line[-1].name for fact in facts]
    if not older:
        return []
    newest = groups[line[-1].name]
    parent = {**knew(before.edits, newest), **_known(shop, line[-2], older)}
    version = {**knew(after.edits, newest), **_known(shop, line[-1], older)}
    return cohorts_of(groups, parent, version)


def _known(shop: "Workspace", version: Version, facts: Sequence[Fact]) -> dict[str, bool]:
    """By id, whether a version answers each fact as taught; asked once and kept."""
    key = digest_json(["knows", version.id, [fact.id for fact in facts]])
    found = shop.archive.recall("outcomes", key)
    if found is None:

        def answer(model: Any, tokenizer: Any, places: Sequence[int]) -> list[bool]:
            return knows(model, tokenizer, [facts[place] for place in places], shop.progress)

        hits = asked_through(shop, version, [fact.prompt for fact in facts], answer)
        found = {fact.id: hit for fact, hit in zip(facts, hits, strict=True)}
        shop.archive.remember("outcomes", key, found)
    return {name: bool(hit) for name, hit in found.items()}
