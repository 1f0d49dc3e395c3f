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
        shift: δ [N, D], float32.
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


def find_or_reuse(facts: Sequence[Fact], states_ND: Tensor, known: Mapping[str, Tensor], search: Search) -> Shifts:
    """The shift of each fact: the known one where its state is near the one of then, else searched for.

    A shift is used, not the target value: the value would bring back what other facts, now gone, had added to
    the state.

    Args:
        facts: The facts.
        states_ND: The state of each, from which a search would begin.
        known: From a fact's id to state and shift [2, D] of an earlier run.
        search: Finds the shifts of the others.
    """
    missing = [
        place
        for place, fact in enumerate(facts)
        if fact.id not in known or not is_near(states_ND[place], known[fact.id])
    ]
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
