"""From a plan to a candidate: solved batch by batch, watched, restrained, stored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.deltas import Delta
from perdure.editing.statistics import Moments
from perdure.measuring.course import TradeOff
from perdure.registry import restraints
from perdure.workspace.choosing import trade_off, weakest
from perdure.workspace.course import Watch
from perdure.workspace.records import Version
from perdure.workspace.runs import EditPlan, forget_work, resolve_config, solve
from perdure.workspace.updates import Restraint, applied_since_base, solved_since_base, step_from

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


def carry_out(shop: "Workspace", plan: EditPlan, *, actor: str, texts: Sequence[str] | None = None) -> Version:
    """The candidate that a plan gives. An interrupted run of the same plan is taken up where it stopped."""
    parent, work = shop.version(plan.parent), shop.folder / "work"
    network, base = shop.load(parent), shop.archive.lineage(parent)[0]
    before = solved_since_base(shop.archive, parent), applied_since_base(shop.archive, parent)
    usual = weakest() if plan.choose else plan.restrained_by

    def restrained(total: Delta, restraint: Restraint = usual) -> Delta:
        return step_from(shop.archive, base, before, total, restraint)

    watch = Watch(shop, parent, plan, network, before=before, restrained=restrained)
    solved = solve(
        *network,
        plan,
        moments=_moments(shop, parent, network, texts),
        previous=before[0],
        work=work,
        progress=shop.progress,
        restrain=restrained if plan.each_batch else None,
        watch=watch,
        earlier=shop.facts_in_force(parent),
    )
    taught = plan if watch.done in {0, len(plan.facts)} else replace(plan, facts=plan.facts[: watch.done])
    if plan.choose:
        facts = [*shop.facts_in_force(parent), *taught.facts]
        curve = trade_off(shop, base, partial(restrained, solved), facts, network)
        taught = _as_chosen(taught, curve)
        watch.settle(solved, restrained(solved, taught.restrained_by), curve)
    shop.progress("storing the version", 0, 1)
    notes = {
        "facts": [fact.model_dump(mode="json") for fact in taught.facts],
        "course": watch.course.model_dump(mode="json"),
    }
    version = shop.archive.commit(
        parent,
        restrained(solved, taught.restrained_by),
        solved=_factored(solved, notes),
        recipe={**taught.recipe(), **watch.ending(), "dense": _dense(solved)},
        actor=actor,
    )
    forget_work(plan, work)
    shop.progress("storing the version", 1, 1)
    return version


def _moments(shop: "Workspace", parent: Version, network: tuple[Any, Any], texts: Sequence[str] | None) -> Moments:
    """Second moments of the base."""
    base = shop.archive.lineage(parent)[0]
    return Moments(
        lambda: shop.load(base) if parent.id != base.id else network,
        texts,
        model_id=base.id,
        progress=lambda done, total: shop.progress("reading text for second moments", done, total),
    )


def _as_chosen(plan: EditPlan, curve: Sequence[TradeOff]) -> EditPlan:
    """The plan with the restraint that was chosen on the curve."""
    best = next(point for point in curve if point.chosen)
    method = restraints.get(best.restraint)
    return replace(plan, restraint=method, restraint_config=resolve_config(method, best.config))


def _dense(solved: Delta) -> list[str]:
    return sorted(name for name, change in solved.changes.items() if not change.is_low_rank)


def _factored(solved: Delta, notes: Mapping[str, Any]) -> Delta:
    """What is kept of what was solved: factors, keys and values; dense changes are in the weights."""
    factored = {name: change for name, change in solved.changes.items() if change.is_low_rank}
    return Delta(factored, solved.keys, {**solved.notes, **notes}, solved.values)
