"""What every editor is given besides the model and the facts, and the order in which batches are done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

from torch import Tensor

from perdure.deltas import Delta
from perdure.editing.applying import apply_delta, having, put_back, restoring
from perdure.editing.statistics import Moments
from perdure.models.adapters import on_plain_view, parameters_by_name
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
        values: From a fact's id to the state and shift [2, D] of the target value that this editor found for it
            before (`Delta.values`). An editor that searches values may use them and skip the search.
        earlier: What the model was taught before, in order. An editor that searches values keeps the answers of those
            that are written where one of the new facts is.
        carried: How many facts the model carries once the whole edit is done, with those of earlier edits; 0 where
            there are none but those given.
    """

    previous_keys: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Moments | None = None
    progress: Progress = silent
    values: Mapping[str, Tensor] = field(default_factory=dict)
    earlier: Sequence[Fact] = ()
    carried: int = 0

    def moments_for(self, model: Any, tokenizer: Any) -> Moments:
        """The moments given, or those of this model over the built-in text."""
        return self.moments or Moments.of_model(model, tokenizer)


class Editor(Protocol):
    """A function from facts to a delta; the model comes back as it was."""

    def __call__(
        self, model: Any, tokenizer: Any, facts: Sequence[Fact], config: Any = None, around: Surroundings = ...
    ) -> Delta:
        """The change that makes the model know the facts."""


@dataclass(frozen=True)
class Progressed:
    """Where a sequence of batches stands; the model carries it at that time.

    Attributes:
        done: Facts solved.
        batch: What the last batch solved.
        total: What all batches solved.
        step: What the model carries beyond its own weights: `total`, or what a restraint made of it.
        known: Whether the last batch was solved before, and only taken up again.
    """

    done: int
    batch: Delta
    total: Delta
    step: Delta
    known: bool = False


@on_plain_view
def edit_in_batches(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    method: Method,
    config: Any,
    *,
    batch_size: int | Sequence[int],
    around: Surroundings,
    start: Sequence[Delta] = (),
    restrain: Callable[[Delta], Delta] | None = None,
    on_batch: Callable[[Progressed], bool | None] = lambda _now: None,
) -> Delta:
    """The delta of all facts, solved batch after batch, each on the model that the earlier ones left.

    Args:
        model: The model; it has its own weights again when this returns or raises.
        tokenizer: Its tokenizer.
        facts: All facts, in order.
        method: A registered editor.
        config: Its settings.
        batch_size: Facts per batch, or those of each batch.
        around: What the edit stands on; keys of earlier batches are added to its previous keys. Where second moments
            are missing, they are taken on the model without any batch.
        start: What each of the first batches solved, to go on after an interruption.
        restrain: From what all batches solved to what is carried in its place, after every batch; later batches are
            solved on that.
        on_batch: Told where the sequence stands after each batch, those of `start` too; the sequence ends there if it
            returns true.

    Returns:
        What all batches solved, before any restraint.
    """
    around = replace(around, carried=max(around.carried, len(facts)))
    total = Delta()
    with restoring(model, parameters_by_name(model)) as own:
        moments = replace(around.moments_for(model, tokenizer), unedited=lambda: having(model, own))
        around = replace(around, moments=moments)
        for number, span in enumerate(batch_spans(len(facts), batch_size)):
            known, now = number < len(start), replace(around, earlier=(*around.earlier, *facts[: span.start]))
            batch = start[number] if known else _solve(model, tokenizer, facts[span], (method, config), now, total)
            total = replace(total + batch, notes={"batches": [*total.notes.get("batches", ()), dict(batch.notes)]})
            step = _carry(model, own, total, batch, restrain)
            if on_batch(Progressed(span.stop, batch, total, step, known)):
                break
    return total


def _solve(
    model: Any, tokenizer: Any, facts: Sequence[Fact], editor: tuple[Method, Any], around: Surroundings, earlier: Delta
) -> Delta:
    """What the editor solves for one batch on the model as it is now, with the keys of the earlier batches."""
    method, config = editor
    keys = (Delta(keys=around.previous_keys) + Delta(keys=earlier.keys)).keys
    solved: Delta = method.call(model, tokenizer, facts, config, replace(around, previous_keys=dict(keys)))
    return solved


def _carry(
    model: Any, own: Mapping[str, Tensor], total: Delta, batch: Delta, restrain: Callable[[Delta], Delta] | None
) -> Delta:
    """Put what the batch solved, or the restrained total, into the model; what it then carries beyond its own."""
    if restrain is None:
        apply_delta(model, batch)
        return total
    step = restrain(total)
    put_back(model, own)
    apply_delta(model, step)
    return step


def batch_spans(count: int, batch_size: int | Sequence[int]) -> list[slice]:
    """Where each batch of `count` facts starts and stops, given the size of all or of each; none is empty."""
    sizes = [batch_size] * -(-count // batch_size) if isinstance(batch_size, int) else list(batch_size)
    stops = [min(stop, count) for stop in accumulate(sizes)]
    return [slice(start, stop) for start, stop in pairwise([0, *stops]) if start < stop]
