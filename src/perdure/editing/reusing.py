"""Target values that an earlier run of the same edit found, used again where the fact's state is as it was then.

Taking one fact out of an edit solves the edit again without it. What takes long in an edit is the search for
target values, and a value belongs to its fact: only where another fact moved the state that the search began
from does it depend on that one. So the state is kept beside the shift, and decides. Shape suffixes: N facts,
D hidden size.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def unshared(values: Mapping[str, Tensor], kept: Collection[str]) -> dict[str, Tensor]:
    """The values of the facts that are kept, without those that were found for a fact that is not kept as well.

    Facts of one site have one value, which holds the answers of all of them.

    Args:
        values: From a fact's id to its state and shift [2, D], of all facts of an edit.
        kept: The ids of those that are kept.
    """
    gone = [value for fact, value in values.items() if fact not in kept]
    return {
        fact: value
        for fact, value in values.items()
        if fact in kept and not any(torch.equal(value, other) for other in gone)
    }


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
