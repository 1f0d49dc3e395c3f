"""What every editor is given besides the model and the facts, and the order in which batches are done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.applying import apply_delta, restoring
from perdure.editing.statistics import Moments
from perdure.models import layout_of
from perdure.models.adapters import on_plain_view
from perdure.progress import Progress, silent
from perdure.registry import Method
from perdure.requests import Fact


@dataclass(frozen=True)
class Surroundings:
    """What an edit stands on.

    Attributes:
        previous_keys: From matrix name to the keys [I, M] of all earlier edits in this lineage.
        moments: Second moments of the base model; of the given model when absent.
        progress: Told how far the work is.
    """

    previous_keys: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Moments | None = None
    progress: Progress = silent

    def moments_for(self, model: Any, tokenizer: Any) -> Moments:
        """The moments given, or those of this model over the built-in text."""
        return self.moments or Moments.of_model(model, tokenizer)


class Editor(Protocol):
    """A function from facts to a delta; the model comes back as it was."""

    def __call__(
        self, model: Any, tokenizer: Any, facts: Sequence[Fact], config: Any = None, around: Surroundings = ...
    ) -> Delta:
        """The change that makes the model know the facts."""


@on_plain_view
def edit_in_batches(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    method: Method,
    config: Any,
    *,
    batch_size: int,
    around: Surroundings,
    start: tuple[int, Delta] = (0, Delta()),
    on_batch: Callable[[int, Delta], None] | None = None,
) -> Delta:
    """The delta of all facts, solved batch after batch, each on the model that the earlier ones left.

    Args:
        model: The model; it has its own weights again when this returns or raises.
        tokenizer: Its tokenizer.
        facts: All facts, in order.
        method: A registered editor.
        config: Its settings.
        batch_size: Facts per batch.
        around: What the edit stands on; keys of earlier batches are added to its previous keys.
        start: How many facts are already done, and their delta (to go on after an interruption).
        on_batch: Told the number of facts done and the delta so far after each batch.
    """
    done, total = start
    matrices = [matrix.name for block in layout_of(model).mlp_matrices for matrix in block]
    with restoring(model, {*matrices, *total.changes}):
        apply_delta(model, total)
        for first in range(done, len(facts), batch_size):
            batch = facts[first : first + batch_size]
            keys = dict((Delta(keys=around.previous_keys) + Delta(keys=total.keys)).keys)
            inner = Surroundings(keys, around.moments, around.progress)
            delta: Delta = method.call(model, tokenizer, batch, config, inner)
            apply_delta(model, delta)
            notes = {"batches": [*total.notes.get("batches", ()), dict(delta.notes)]}
            joined = total + delta
            total = Delta(joined.changes, joined.keys, notes)
            if on_batch:
                on_batch(first + len(batch), total)
    return total
