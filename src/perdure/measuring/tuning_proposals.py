"""Settings that fit a task, the model and the memory at hand, each with its reason; and what the training costs.

What is no arithmetic is a rule of thumb and says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.advice import CostAdvice, Duplicates, GroupAdvice, Proposal, TermAdvice
from perdure.measuring.tuning_costs import (
    Memory,
    Shape,
    anchors_flop,
    averaging_flop,
    memory_of,
    term_cost,
    training_flop,
    work_of,
)
from perdure.measuring.tuning_probe import Probed
from perdure.settings import checked
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import row_limit

_ROOM = 0.8  # of the memory at hand that a training may take: fragments, caches and other programs need the rest
_DECENT = 100  # steps of a training: with fewer, adapters that start at zero hardly move
_ENOUGH = 0.9  # share of right answers from which there is little to learn


@dataclass(frozen=True)
class Situation:
    """What settings are proposed from.

    Attributes:
        lengths: Tokens of each row to learn.
        learnt: Tokens of each row on which the loss is.
        longest: Of the rows to learn and to validate on.
        shape: The model's sizes.
        positions: How many tokens the model can read.
        memory: Bytes at hand, the model's own included.
        heads: Whether some heads are known to carry skills.
        already: The share of right answers today; None where it was not asked.
        earlier: Tasks that were learnt before.
    """

    lengths: Sequence[int]
    learnt: Sequence[int]
    longest: int
    shape: Shape
    positions: int | None
    memory: int
    heads: bool
    already: float | None
    earlier: int = 0


def propose(known: Situation, given: Mapping[str, Any], usual: Mapping[str, Any]) -> tuple[Proposal, ...]:
    """Settings that fit a task, the model and the memory at hand; what was given stays.

    Args:
        known: What is known.
        given: Settings that the user asked for.
        usual: Settings where nothing is asked for: regularizers and averaging.
    """
    made = [_max_tokens(known, given), _rank(known), _regularizers(known, usual)]
    made += _batches(known, {**usual, **{each.name: each.value for each in made}, **given})
    size = {each.name: each.value for each in made} | dict(given)
    steps = math.ceil(len(known.lengths) / (size.get("batch_size", 16) * size.get("accumulation", 1)))
    made += [_epochs(known, steps), _learning_rate(known, full=given.get("method") == "full")]
    made = [each for each in made if not (each.name == "rank" and given.get("method") == "full")]
    return tuple(
        Proposal(name=each.name, value=given[each.name], reason="as given") if each.name in given else each
        for each in made
    )


def settings_from(proposals: Sequence[Proposal], given: Mapping[str, Any], usual: Mapping[str, Any]) -> TuningConfig:
    """The settings that the proposals and what was given make."""
    proposed = {each.name: each.value for each in proposals}
    return checked(TuningConfig, {**usual, **proposed, **given}, "tuning")


def _max_tokens(known: Situation, given: Mapping[str, Any]) -> Proposal:
    usual = TuningConfig().max_tokens
    if known.positions is not None and known.longest > known.positions:
        reason = f"the model reads {known.positions} tokens and the longest row has {known.longest}: shorten it"
        return Proposal(name="max_tokens", value=known.positions, reason=reason)
    fits = known.longest <= row_limit(int(given.get("max_tokens", usual)), known.positions)
    value = usual if fits else 64 * math.ceil(known.longest / 64)
    return Proposal(name="max_tokens", value=value, reason=f"the longest row has {known.longest} tokens")


def _rank(known: Situation) -> Proposal:
    """Adapters hold about a bit a number (Schulman, "LoRA Without Regret", 2025), and an answer token about a bit."""
    tokens, rank = sum(known.learnt), 8
    while known.shape.adapter_numbers(rank) < tokens and rank < 64:
        rank *= 2
    numbers = known.shape.adapter_numbers(rank)
    return Proposal(name="rank", value=rank, reason=f"{numbers:,} trained numbers for {tokens:,} answer tokens")


def _regularizers(known: Situation, usual: Mapping[str, Any]) -> Proposal:
    terms = tuple(dict(term) for term in usual.get("regularizers", ()))
    if not terms:
        return Proposal(name="regularizers", value=(), reason="only requests like the task's meet its adapter")
    if known.heads or not any(term["kind"] == "function_vector" for term in terms):
        return Proposal(name="regularizers", value=terms, reason="the usual combination")
    rest = tuple(term for term in terms if term["kind"] != "function_vector")
    reason = "without function_vector: no head is seen to carry a known skill in this model"
    return Proposal(name="regularizers", value=rest, reason=reason)


def _batches(known: Situation, settings: Mapping[str, Any]) -> list[Proposal]:
    """Batch size, accumulation and checkpointing: as many rows a step as are wanted, as few at once as memory holds.

    What was given is kept, and the rest chosen for it.
    """
    wanted = 1 << max(2, min(4, int(math.log2(max(4, len(known.lengths) / 16)))))
    given, parts = settings.get("batch_size"), settings.get("accumulation")
    sizes = _halves(max(1, wanted // int(parts or 1))) if given is None else [int(given)]
    ways = [bool(settings["gradient_checkpointing"])] if "gradient_checkpointing" in settings else [False, True]
    room = _ROOM * known.memory
    tried = [(size, again) for again in ways for size in sizes]
    for size, again in tried:
        config = {**settings, "batch_size": size, "gradient_checkpointing": again}
        needed = _memory(known, config).total
        if needed <= room:
            break
    held = f"{needed / 1e9:.1f} GB of {known.memory / 1e9:.1f} GB at hand"
    fits = held if needed <= room else f"{held}: not enough, even for one row; take a smaller model or more memory"
    if parts is None:
        parts = max(1, wanted // size) if given is None else 1
    rows = size * int(parts)
    reason = f"{math.ceil(len(known.lengths) / rows)} steps an epoch from {len(known.lengths)} rows"
    return [
        Proposal(name="batch_size", value=size, reason=f"{reason}; {fits}"),
        Proposal(name="accumulation", value=int(parts), reason=f"{rows} rows a step"),
        Proposal(
            name="gradient_checkpointing",
            value=again,
            reason="activations do not fit otherwise; about a third more time" if again else "activations fit",
        ),
    ]


def _halves(size: int) -> list[int]:
    """A size and its halves, down to one."""
    return [size >> shift for shift in range(size.bit_length())]


def _memory(known: Situation, settings: Mapping[str, Any]) -> Memory:
    config = checked(TuningConfig, {**settings, "max_tokens": known.positions or known.longest}, "tuning")
    work = work_of(known.lengths, known.learnt, config, earlier=known.earlier)
    return memory_of(known.shape, config, work)


def _epochs(known: Situation, steps: int) -> Proposal:
    if known.already is not None and known.already >= _ENOUGH:
        reason = f"the model has {known.already:.0%} right already: see first whether it needs the task"
        return Proposal(name="epochs", value=1, reason=reason)
    epochs = max(2, min(5, math.ceil(_DECENT / steps)))
    return Proposal(name="epochs", value=epochs, reason=f"{epochs * steps} steps; rule of thumb: {_DECENT}, in 2 to 5")


def _learning_rate(known: Situation, *, full: bool) -> Proposal:
    """Larger models take smaller steps; whole matrices a tenth of what adapters take."""
    billions = known.shape.weights / 1e9
    rate = 5e-4 if billions < 1 else 2e-4 if billions < 30 else 1e-4
    reason = f"rule of thumb for {'all projections' if full else 'adapters'} at {billions:.2g} B weights"
    return Proposal(name="learning_rate", value=rate / 10 if full else rate, reason=reason)


def advise_pool(group: GroupAdvice, duplicates: Sequence[Duplicates], *, pooled: bool, full: bool) -> Proposal:
    """Whether the task is better kept in an adapter of its own: where it contradicts an earlier one.

    Args:
        group: The group of the task's instructions.
        duplicates: Its rows that ask nearly what earlier tasks ask.
        pooled: Whether the version answers with a pool already.
        full: Whether whole matrices are to be trained, which no pool holds.
    """
    against = [one for one in duplicates if one.conflicting]
    if pooled:
        return Proposal(name="pool", value=True, reason=f"the version answers with one: {group.reason}")
    if not against:
        return Proposal(name="pool", value=False, reason="nothing contradicts an earlier task; one model, no routing")
    rows = f"{sum(one.conflicting for one in against)} rows contradict {', '.join(one.task for one in against)}"
    if full:
        return Proposal(name="pool", value=False, reason=f"{rows}, but a pool holds no whole matrices")
    reason = f"{rows}: in one set of weights one of the two is lost; requests are told apart by their instruction only"
    return Proposal(name="pool", value=True, reason=reason)


def cost_of(known: Situation, config: TuningConfig, probed: Probed | None) -> CostAdvice:
    """What a training costs, on paper and, where it was probed, in seconds on this machine."""
    shape = known.shape
    work = work_of(known.lengths, known.learnt, config, earlier=known.earlier)
    tokens = work.padded * work.steps / work.batches
    plain = training_flop(shape, config, tokens)
    terms = tuple(
        _term(name, term_cost(name, term, shape, config, work), plain / work.steps, probed)
        for name, term in config.terms()
    )
    once = sum(term.once_flop or 0.0 for term in terms)
    once += anchors_flop(shape, config) + averaging_flop(shape, config, work)
    training = plain * (1 + sum(term.step_share or 0.0 for term in terms))
    return CostAdvice(
        steps=work.steps,
        tokens=round(tokens),
        training_flop=training,
        once_flop=once,
        seconds=None if probed is None else _seconds(shape, config, tokens, once, probed),
        probe_tokens=probed and probed.tokens,
        step_seconds=probed and probed.seconds,
        memory=memory_of(shape, config, work),
        memory_checkpointing=memory_of(shape, config.model_copy(update={"gradient_checkpointing": True}), work).total,
        memory_at_hand=known.memory,
        terms=terms,
    )


def _term(name: str, cost: Any, step_flop: float, probed: Probed | None) -> TermAdvice:
    return TermAdvice(
        name=name,
        once_flop=cost and cost.once_flop,
        target_bytes=cost and cost.target_bytes,
        step_share=cost and cost.step_flop / step_flop,
        measured_share=probed.share(name) if probed else None,
    )


def _seconds(shape: Shape, config: TuningConfig, tokens: float, once_flop: float, probed: Probed) -> float:
    """The probe's time a token, for all tokens; what is done once goes at the speed of a plain step."""
    added = 1 + sum(probed.share(name) for name, _ in config.terms())
    speed = training_flop(shape, config, probed.tokens) / probed.seconds
    return probed.seconds / probed.tokens * tokens * added + once_flop / speed
