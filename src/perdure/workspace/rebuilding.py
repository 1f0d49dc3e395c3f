"""Doing the edits of a lineage once more without some facts: the same solves, in order, as one new version."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.deltas import Delta
from perdure.editing.applying import applied
from perdure.editing.statistics import Moments
from perdure.workspace.records import Version
from perdure.workspace.removing import RemovalPlan, values_under_steps
from perdure.workspace.runs import EditPlan, forget_work, solve, text_id_of
from perdure.workspace.updates import applied_since_base, next_steps, solved_since_base, step_from, sum_of

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


def rebuild(shop: "Workspace", plan: RemovalPlan, *, actor: str, texts: Sequence[str] | None = None) -> Version:
    """The candidate that a removal gives: its parent, and on it every later edit without the facts.

    Each edit is solved on the model as the ones before it leave it now, with the keys of the facts that are left.
    An editor that kept its target values finds no new ones. An interrupted run is taken up where it stopped.
    """
    solved: list[Delta] = []
    for place, step in enumerate(plan.steps):
        shop.progress("editing again", place, len(plan.steps))
        solved.append(_solve_again(shop, plan, step, solved, texts))
    shop.progress("storing the version", 0, 1)
    version = _commit(shop, plan, solved, actor)
    for step in plan.steps:
        forget_work(step, shop.folder / "work")
    shop.progress("storing the version", 1, 1)
    return version


def _solve_again(
    shop: "Workspace", plan: RemovalPlan, step: EditPlan, earlier: Sequence[Delta], texts: Sequence[str] | None
) -> Delta:
    """What one edit solves on the parent with the earlier ones of the removal on top."""
    model, tokenizer = shop.load(plan.parent)
    base = shop.archive.lineage(plan.parent)[0]
    moments = Moments(
        lambda: shop.load(base, fresh=True),  # the parent's model carries the earlier edits while it is solved on
        texts if step.text_id == text_id_of(texts) else None,
        model_id=base.id,
        progress=lambda done, total: shop.progress("reading text for second moments", done, total),
    )
    so_far = next_steps(shop.archive, plan.parent, earlier, plan.restraints[: len(earlier)])
    previous = solved_since_base(shop.archive, plan.parent) + sum_of(earlier)
    applied_before = applied_since_base(shop.archive, plan.parent) + so_far

    def restrain(total: Delta) -> Delta:
        return step_from(shop.archive, base, (previous, applied_before), total, plan.restraints[len(earlier)])

    done = plan.steps[: len(earlier)]
    with applied(model, so_far):
        return solve(
            model,
            tokenizer,
            step,
            moments=moments,
            previous=previous,
            work=shop.folder / "work",
            progress=shop.progress,
            restrain=restrain if step.each_batch else None,
            earlier=[*shop.facts_in_force(plan.parent), *(fact for old in done for fact in old.facts)],
        )


def _commit(shop: "Workspace", plan: RemovalPlan, solved: Sequence[Delta], actor: str) -> Version:
    total = sum_of(solved)
    notes: dict[str, Any] = {
        "batches": [batch for delta in solved for batch in delta.notes.get("batches", ())],
        "facts": [fact.model_dump(mode="json") for fact in plan.facts],
        "removed": [fact.model_dump(mode="json") for fact in plan.removed],
    }
    # One restraint stands in a version's recipe. Where it does not say how all of this was restrained, later
    # restraints take what the weights carry for what was solved.
    dense = sorted(name for name, change in total.changes.items() if plan.restrained_in_part or not change.is_low_rank)
    kept = {name: change for name, change in total.changes.items() if name not in dense}
    return shop.archive.commit(
        plan.parent,
        next_steps(shop.archive, plan.parent, solved, plan.restraints),
        solved=Delta(kept, total.keys, notes, values_under_steps([delta.values for delta in solved])),
        recipe={**plan.recipe(), "dense": dense},
        actor=actor,
    )
