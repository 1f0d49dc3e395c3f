"""Taking facts out of a version again: which edits are done once more, from where, and with what is known of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json
from perdure.editing.method import batch_spans
from perdure.editing.reusing import unshared
from perdure.errors import RefusedError, RequestError, SettingError, WorkspaceError
from perdure.registry import editors, restraints
from perdure.requests import Fact
from perdure.requests.choosing import choose_facts
from perdure.workspace.archive import Archive
from perdure.workspace.pools import refuse_pool
from perdure.workspace.records import Version
from perdure.workspace.runs import Again, EditPlan, resolve_config, text_id_of
from perdure.workspace.updates import Restraint, last_restrained

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

EDIT, REMOVAL = "edit", "removal"


@dataclass(frozen=True)
class RemovalPlan:
    """Everything that decides what is left when facts are taken out of a version.

    Attributes:
        origin: The version that they are taken out of.
        parent: The last version before any of them was taught; the new one stands on it.
        removed: The facts.
        steps: The edits from there to the origin, without the facts; each to be done once more, in order.
        names: The version that each of these edits belongs to.
    """

    origin: Version
    parent: Version
    removed: tuple[Fact, ...]
    steps: tuple[EditPlan, ...]
    names: tuple[str, ...]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts that stay, of the edits that are done once more."""
        return tuple(fact for step in self.steps for fact in step.facts)

    @property
    def known(self) -> tuple[int, ...]:
        """Of how many facts of each edit the target value is known."""
        return tuple(len(step.again.values) if step.again else 0 for step in self.steps)

    @property
    def restraints(self) -> tuple[Restraint, ...]:
        """The restraint of each edit."""
        return tuple(step.restrained_by for step in self.steps)

    @property
    def restrained_in_part(self) -> bool:
        """Whether the last restraint leaves out what was solved after it."""
        return 0 <= last_restrained(self.restraints) < len(self.steps) - 1

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest; the facts themselves lie with the solved delta."""
        name, config = self.restraints[-1] if self.steps else ("none", {"kind": "none"})
        return {
            "kind": REMOVAL,
            "removed": {"count": len(self.removed), "digest": _digest(self.removed), "from": self.origin.id},
            "editor": ", ".join(dict.fromkeys(step.method.name for step in self.steps)) or "none",
            "restraint": name,
            "restraint_config": dict(config),
            "facts": {"count": len(self.facts), "digest": _digest(self.facts)},
            "steps": [step.recipe() for step in self.steps],
        }


def plan_removal(
    shop: "Workspace", names: Sequence[str], *, on: "str | Version" = "", texts: Sequence[str] | None = None
) -> RemovalPlan:
    """What taking facts out of a version would do; nothing is computed.

    Args:
        shop: The workspace.
        names: Ids, prompts or subjects of facts taught in the version or before it.
        on: The version; the newest one that was not rejected when not given.
        texts: The text that the edits took their second moments over; the built-in passages when not given.

    Raises:
        RequestError: A name means no fact, or several.
        RefusedError: What the new version would stand on was rejected, or the version has a pool.
        SettingError: An edit took its second moments over another text.
        WorkspaceError: A version in between was not made by an edit.
    """
    origin = shop.version(on) if on else shop.newest()
    refuse_pool(origin, "take the facts out before it was made")
    line = shop.archive.lineage(origin)
    taught = [shop.facts(version) for version in line]
    if not any(taught):
        raise RequestError(f"{origin.name} was taught no fact, so none can be taken out")
    removed = choose_facts(names, (fact for facts in taught for fact in facts))
    if not removed:
        raise RequestError("no fact is named; name one at least by its id, prompt or subject")
    ids = {fact.id for fact in removed}
    first = next(place for place, facts in enumerate(taught) if ids & {fact.id for fact in facts})
    parent = line[first - 1]
    rejected = shop.rejected(parent)
    if rejected is not None:
        raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; teach the facts anew")
    found = [
        (version.name, left)
        for version in line[first:]
        for left in _left_of(shop.archive, version, removed, parent, origin)
    ]
    _check_texts([step for _, step in found], texts)
    return RemovalPlan(origin, parent, removed, tuple(step for _, step in found), tuple(name for name, _ in found))


def _left_of(
    archive: Archive, version: Version, removed: Sequence[Fact], parent: Version, origin: Version
) -> Iterable[EditPlan]:
    """The edits of one version without the facts; those that taught nothing else are left out."""
    ids = {fact.id for fact in removed}
    for place, (recipe, facts, values) in enumerate(_edits_of(archive, version)):
        spans = batch_spans(len(facts), recipe.get("batches") or int(recipe["batch_size"]))
        batches = [[fact for fact in facts[span] if fact.id not in ids] for span in spans]
        left = tuple(fact for batch in batches for fact in batch)
        if left:
            name = digest_json([version.id, place, sorted(ids), origin.id])
            sizes = tuple(len(batch) for batch in batches if batch)
            again = Again(name, sizes, unshared(values, left, removed))
            yield replace(_plan_of(recipe, parent, left), again=again)


def _edits_of(
    archive: Archive, version: Version
) -> Iterable[tuple[Mapping[str, Any], tuple[Fact, ...], Mapping[str, Any]]]:
    """The edits that a version is made of: recipe, facts and kept values of each.

    Raises:
        WorkspaceError: It was not made by an edit.
    """
    recipe, solved = version.manifest.recipe, archive.solved(version)
    facts = tuple(Fact.model_validate(row) for row in solved.notes.get("facts", ()))
    if recipe.get("kind") == EDIT:
        yield recipe, facts, solved.values
        return
    if recipe.get("kind") != REMOVAL:
        raise WorkspaceError(f"{version.name} was not made by an edit, so it cannot be done again without a fact")
    start = 0
    for place, step in enumerate(recipe["steps"]):
        stop = start + int(step["facts"]["count"])
        yield step, facts[start:stop], values_of_step(solved.values, place)
        start = stop


def values_of_step(values: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The values of one edit out of those of a version that holds several."""
    prefix = f"{place}/"
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def values_under_steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of several edits in one mapping: a fact that was taught twice has two."""
    return {f"{place}/{name}": value for place, values in enumerate(steps) for name, value in values.items()}


def _plan_of(recipe: Mapping[str, Any], parent: Version, facts: tuple[Fact, ...]) -> EditPlan:
    """The plan that a recipe was written from, with other facts."""
    method, restraint = editors.get(recipe["editor"]), restraints.get(recipe["restraint"])
    return EditPlan(
        parent=parent.id,
        facts=facts,
        method=method,
        config=resolve_config(method, recipe["config"]),
        restraint=restraint,
        restraint_config=resolve_config(restraint, recipe["restraint_config"]),
        batch_size=int(recipe["batch_size"]),
        text_id=recipe["moments_text"],
        preset=recipe.get("preset"),
        layers=recipe.get("layers", {}),
        each_batch=recipe.get("restraint_after") == "each batch",
    )


def _check_texts(steps: Sequence[EditPlan], texts: Sequence[str] | None) -> None:
    known = {text_id_of(None), text_id_of(texts)}
    other = [step for step in steps if step.text_id not in known]
    if other:
        given = "another text than the one given" if texts else "a text of its own"
        raise SettingError(
            f"an edit with {other[0].method.name} took its second moments over {given}; give it with --text"
        )


def _digest(facts: Iterable[Fact]) -> str:
    return digest_json([fact.id for fact in facts])
