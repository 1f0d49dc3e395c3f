"""Target values that an earlier run of the same edit found, used again where the fact's state is as it was then.

Taking one fact out of an edit solves the edit again without it. What takes long in an edit is the search for
target values, and a value belongs to its fact: only where another fact moved the state that the search began
from does it depend on that one. So the state is kept beside the shift, and decides. Shape suffixes: N facts,
D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.editing.subjects import beginning_of
from perdure.editing.values import Values
from perdure.requests import Fact

NEAR = 0.1
"""How far a state may lie from the one that its shift was found on, in lengths of the shift and of the state."""

Search = Callable[[list[int]], Values]
"""From the places of some of the facts to what the search finds for them, in that order."""


@dataclass(frozen=True)
class Shifts:
    """The shift of each fact, found now or before.

    Attributes:
        shift: δ [N, D], float32; the same for facts of one site.
        losses: The last loss of the search; None where there was none.
        steps: How many steps it took.
        values: From a fact's id to its state and shift [2, D], to be kept with the delta.
    """

    shift: Tensor
    losses: tuple[float | None, ...]
    steps: tuple[int, ...]
    values: dict[str, Tensor]


def is_near(state_D: Tensor, value_2D: Tensor) -> bool:
    """Whether a state is the one that a shift was found on, but for a tenth of the shorter of the two.

    The limit is far above what other facts' edits do to each other's states (a few hundredths on SmolLM2-135M)
    and far below what an edit of the same subject does (about one).
    """
    start_D, shift_D = value_2D.double().to(state_D.device)
    return bool((state_D.double() - start_D).norm() <= NEAR * min(shift_D.norm(), start_D.norm()))


def unshared(values: Mapping[str, Tensor], facts: Sequence[Fact], gone: Sequence[Fact]) -> dict[str, Tensor]:
    """The values of facts that do not begin as one that is gone does.

    Facts of one site have one value, which holds the answers of all of them, those of earlier edits too; it may hold
    that of a fact that is gone.

    Args:
        values: From a fact's id to its state and shift [2, D].
        facts: The facts that are kept.
        gone: Those that are not.
    """
    beginnings = {beginning_of(fact) for fact in gone}
    return {fact.id: values[fact.id] for fact in facts if fact.id in values and beginning_of(fact) not in beginnings}


def find_or_reuse(
    facts: Sequence[Fact], sites: Sequence[int], states_ND: Tensor, known: Mapping[str, Tensor], search: Search
) -> Shifts:
    """The shift of each fact: the known one where its state is near the one of then, else searched for.

    The facts of a site are searched for together, unless all of them know the same shift. A shift is used, not the
    target value: the value would bring back what other facts, now gone, had added to the state.

    Args:
        facts: The facts.
        sites: The site of each (`sites_of`).
        states_ND: The state of each, from which a search would begin.
        known: From a fact's id to state and shift [2, D] of an earlier run.
        search: Finds the shifts of the others.
    """
    unknown = {
        site
        for site, fact, state_D in zip(sites, facts, states_ND, strict=True)
        if not _is_known(fact, facts[site], state_D, known)
    }
    missing = [place for place, site in enumerate(sites) if site in unknown]
    found = search(missing) if missing else Values(torch.zeros(0, states_ND.shape[1]), (), ())
    at = {place: number for number, place in enumerate(missing)}
    shifts = [found.shift[at[place]] if place in at else known[fact.id][1] for place, fact in enumerate(facts)]
    return Shifts(
        shift=torch.stack(shifts).float(),
        losses=tuple(round(found.losses[at[place]], 6) if place in at else None for place in range(len(facts))),
        steps=tuple(found.steps[at[place]] if place in at else 0 for place in range(len(facts))),
        values={
            fact.id: torch.stack([states_ND[place].float().cpu(), shifts[place].float().cpu()])
            if place in at
            else known[fact.id]
            for place, fact in enumerate(facts)
        },
    )


def _is_known(fact: Fact, first: Fact, state_D: Tensor, known: Mapping[str, Tensor]) -> bool:
    """Whether a fact's value is known and near, and the same as that of the first fact of its site."""
    value_2D, first_2D = known.get(fact.id), known.get(first.id)
    if value_2D is None or first_2D is None:
        return False
    return torch.equal(value_2D, first_2D) and is_near(state_D, value_2D)
