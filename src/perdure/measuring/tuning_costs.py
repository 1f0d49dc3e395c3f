"""What a tuning costs on paper: floating-point operations and bytes, as functions of sizes.

N weights are read once a token: 2·N operations forward and 2·N back through the activations; gradients of trained
matrices cost 2 operations a number and token, those of adapters (which are read as well) 6. Left out: attention over
positions (at 7B and 1,024 tokens 4% more) and norms; embeddings that are only looked up count as if they were read.
Letters: O rows and I columns of a matrix, D width, F inner width, K head size, R rank.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.tuning.config import TuningConfig
from perdure.tuning.regularizer import RegularizerConfig

_FLOAT = 4  # bytes of a trained number, its gradient, and each of Adam's two moments
_SHOWN_TOKENS = 250  # of a prompt with examples
_FEATURE_BLOCKS = 5
_ANCHOR = 64  # tokens of a row that regularizers hold on to; all but the first are predicted
_WRITTEN = 80  # tokens that a model reads and writes for a row of its own


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that is tuned.

    Attributes:
        weights: N, all weights.
        layers: Blocks.
        width: D, the size of the hidden state.
        inner: F, the size of the MLP's inner state.
        heads: Query heads of a block.
        kv_heads: Key-value heads of a block.
        head_dim: K, the size of a head.
        vocabulary: Tokens that are told apart.
        matrices: O and I of every trained matrix.
        bytes_per_weight: 2 in half precision, 4 in float32.
    """

    weights: int
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    matrices: tuple[tuple[int, int], ...]
    bytes_per_weight: int

    @property
    def dense_numbers(self) -> int:
        """How many numbers the trained matrices have."""
        return sum(rows * columns for rows, columns in self.matrices)

    def adapter_numbers(self, rank: int) -> int:
        """How many numbers adapters of a rank have: Σ R (O + I)."""
        return rank * sum(rows + columns for rows, columns in self.matrices)

    def trained_numbers(self, config: TuningConfig) -> int:
        """How many numbers are trained."""
        return self.dense_numbers if config.method == "full" else self.adapter_numbers(config.rank)


@dataclass(frozen=True)
class Work:
    """What is read.

    Attributes:
        rows: All rows.
        tokens: Their tokens.
        learnt: Those of them on which the loss is.
        padded: Tokens of a pass with the padding of its batches.
        batches: Of a pass.
        steps: Batches of the whole training, accumulated ones included.
        batch_tokens: Padded tokens of the largest batch.
        batch_learnt: Tokens learnt in it.
        earlier: Tasks that were learnt before.
        anchors: Rows of general text among all these; some stand beside each batch.
    """

    rows: int
    tokens: int
    learnt: int
    padded: int
    batches: int
    steps: int
    batch_tokens: int
    batch_learnt: int
    earlier: int = 0
    anchors: int = 0


def work_of(lengths: Sequence[int], learnt: Sequence[int], config: TuningConfig, *, earlier: int = 0) -> Work:
    """What the settings make of rows of these lengths, in batches drawn with the settings' seed.

    Args:
        lengths: Tokens of each row.
        learnt: Tokens of each row on which the loss is.
        config: The settings.
        earlier: Tasks that were learnt before.
    """
    order = random.Random(f"batches {config.seed}").sample(range(len(lengths)), len(lengths))
    starts = range(0, len(order), config.batch_size)
    beside = [_ANCHOR] * config.beside(config.batch_size, config.anchors)
    parts = [[*(lengths[row] for row in order[start : start + config.batch_size]), *beside] for start in starts]
    steps = max(1, round(config.epochs * len(parts)))
    if config.max_steps is not None:
        steps = min(steps, config.max_steps * config.accumulation)
    size = min(config.batch_size, len(lengths))
    return Work(
        rows=len(lengths) + config.anchors,
        tokens=sum(lengths) + _ANCHOR * config.anchors,
        learnt=sum(learnt) + (_ANCHOR - 1) * config.anchors,
        padded=sum(max(part) * len(part) for part in parts),
        batches=len(parts),
        steps=steps,
        batch_tokens=max(*lengths, *beside, 0) * (size + len(beside)),
        batch_learnt=sum(sorted(learnt)[-size:]) + (_ANCHOR - 1) * len(beside),
        earlier=earlier,
        anchors=config.anchors,
    )


def forward_flop(weights: int, tokens: float) -> float:
    """2·N·tokens."""
    return 2.0 * weights * tokens


def training_flop(shape: Shape, config: TuningConfig, tokens: float) -> float:
    """Forward and backward: 4·N a token, 6 a number of the adapters or 2 of whole matrices; 2·N again to recompute."""
    trained = shape.trained_numbers(config)
    numbers = 4.0 * shape.weights + (2.0 if config.method == "full" else 6.0) * trained
    return tokens * (numbers + (2.0 * shape.weights if config.gradient_checkpointing else 0.0))


def activation_numbers(shape: Shape) -> int:
    """What the backward pass needs of one token in one block: 4·D + 2·(H + H_kv)·K + 4·F.

    The block's input, the middle state and both norms' outputs; queries, keys, values and what the heads give; gate,
    its activation, up and their product. An MLP without a gate keeps two of these four, and what its activation is
    composed of: no less with the GELU of GPT-2. Attention weights are not kept (fused attention).
    """
    return 4 * shape.width + 2 * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * shape.inner


def activation_bytes(shape: Shape, tokens: int, *, checkpointing: bool) -> int:
    """All blocks' activations; with checkpointing the blocks' inputs and one block's activations."""
    block = activation_numbers(shape)
    numbers = shape.layers * shape.width + block if checkpointing else shape.layers * block
    return tokens * numbers * shape.bytes_per_weight


def logit_bytes(shape: Shape, learnt: int) -> int:
    """Logits and their gradient in the model's precision; in float32 a copy, its logarithms and their gradient."""
    return learnt * shape.vocabulary * (2 * shape.bytes_per_weight + 3 * _FLOAT)


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while a batch is trained.

    Attributes:
        weights: Of the model.
        trained: Adapters, or float32 masters of the trained matrices.
        gradients: Of what is trained.
        optimizer: Adam's two moments.
        activations: Of the largest batch.
        logits: At its places to learn.
        terms: What the regularizers hold there.
    """

    weights: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    terms: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())


def memory_of(shape: Shape, config: TuningConfig, work: Work) -> Memory:
    """What the largest batch takes."""
    trained = shape.trained_numbers(config) * _FLOAT
    terms = [term_cost(name, term, shape, config, work) for name, term in config.terms()]
    return Memory(
        weights=shape.weights * shape.bytes_per_weight,
        trained=trained,
        gradients=trained,
        optimizer=2 * trained,
        activations=activation_bytes(shape, work.batch_tokens, checkpointing=config.gradient_checkpointing),
        logits=logit_bytes(shape, work.batch_learnt),
        terms=sum(term.device_bytes for term in terms if term),
    )


@dataclass(frozen=True)
class TermCost:
    """What a regularizer adds.

    Attributes:
        once_flop: Before the first step and after the last one.
        step_flop: In every batch.
        target_bytes: What is computed once and kept in a file while the task is trained.
        device_bytes: What it holds on the device while a batch is trained.
    """

    once_flop: float = 0.0
    step_flop: float = 0.0
    target_bytes: int = 0
    device_bytes: int = 0


def term_cost(name: str, term: RegularizerConfig, shape: Shape, config: TuningConfig, work: Work) -> TermCost | None:
    """What a regularizer adds on paper; None for one that nobody worked out."""
    found = _TERMS.get(name)
    return None if found is None else found(term, shape, config, work)


def _function_vector(term: Any, shape: Shape, _config: TuningConfig, work: Work) -> TermCost:
    """The rows once for the heads and once for the guided answers; the new task's prompts."""
    heads = len(term.heads or ()) or 10
    held, guided = bool(term.consistency), bool(term.guidance)
    tokens = work.tokens * (held + guided) + guided * term.prompts * _SHOWN_TOKENS
    targets = held * work.rows * heads * shape.head_dim * _FLOAT + guided * work.learnt * _top_k_bytes(term.top_k)
    return TermCost(
        once_flop=forward_flop(shape.weights, tokens),
        target_bytes=targets,
        device_bytes=guided * _divergence_bytes(shape, work),
    )


def _distillation(term: Any, shape: Shape, _config: TuningConfig, work: Work) -> TermCost:
    """The rows that it holds, once."""
    general = work.anchors * _ANCHOR, work.anchors * (_ANCHOR - 1)
    own = work.tokens - general[0], work.learnt - general[1]
    tokens, learnt = {"all": (work.tokens, work.learnt), "anchors": general, "task": own}[term.on]
    return TermCost(
        once_flop=forward_flop(shape.weights, tokens),
        target_bytes=learnt * _top_k_bytes(term.top_k),
        device_bytes=_divergence_bytes(shape, work),
    )


def _top_k_bytes(count: int) -> int:
    """Numbers and log-probabilities of the tokens told apart, and of the rest."""
    return 4 * count + _FLOAT * (count + 1)


def _divergence_bytes(shape: Shape, work: Work) -> int:
    """Float32 logits, their logarithms and their gradient."""
    return 3 * _FLOAT * shape.vocabulary * work.batch_learnt


def _feature_distance(term: Any, shape: Shape, _config: TuningConfig, work: Work) -> TermCost:
    """The rows once, features in float16; live: once more in every batch."""
    blocks = len(term.layers) if term.layers else min(_FEATURE_BLOCKS, shape.layers)
    held = 3 * blocks * shape.width * _FLOAT * work.batch_tokens  # now, the reference, their difference
    if not term.cached:
        return TermCost(step_flop=forward_flop(shape.weights, work.padded / work.batches), device_bytes=held)
    return TermCost(
        once_flop=forward_flop(shape.weights, work.tokens),
        target_bytes=2 * blocks * shape.width * work.tokens,
        device_bytes=held,
    )


def _l2sp(term: Any, shape: Shape, config: TuningConfig, work: Work) -> TermCost:
    """From Gram matrices of the factors; whole differences where all is trained or the original is the reference."""
    whole = config.method == "full" or (term.reference == "original" and work.earlier)
    if whole:
        return TermCost(step_flop=4.0 * shape.dense_numbers, device_bytes=2 * shape.dense_numbers * _FLOAT)
    return TermCost(step_flop=6.0 * config.rank * shape.adapter_numbers(config.rank))


def _ewc(term: Any, shape: Shape, config: TuningConfig, work: Work) -> TermCost:
    """After the task the gradients of some rows; from the second task on every whole change in every batch."""
    rows = min(term.rows, work.rows)
    tokens = work.tokens * rows / work.rows
    once = tokens * (4.0 * shape.weights + 2.0 * shape.dense_numbers)
    if not work.earlier:
        return TermCost(once_flop=once)
    product = 6.0 * config.rank if config.method == "lora" else 0.0
    numbers = shape.dense_numbers
    return TermCost(once_flop=once, step_flop=(product + 6.0) * numbers, device_bytes=3 * numbers * _FLOAT)


def _kfac(term: Any, shape: Shape, config: TuningConfig, work: Work) -> TermCost:
    """Sketches of some rows after the task, and of the anchors before the first; products of factors in every step."""
    rows = min(term.rows, work.rows)
    own = 0 if work.earlier else work.anchors
    tokens = work.tokens * rows / work.rows + own * _ANCHOR
    sides = shape.adapter_numbers(1)
    once = tokens * (4.0 * shape.weights + 16.0 * term.rank * sides)
    held = work.earlier + (work.anchors > 0)
    kept = held * term.rank * sides
    if config.method == "lora":
        return TermCost(once_flop=once, step_flop=6.0 * config.rank * kept, device_bytes=kept * _FLOAT)
    step = 12.0 * held * term.rank * shape.dense_numbers
    return TermCost(once_flop=once, step_flop=step, device_bytes=(kept + 3 * shape.dense_numbers) * _FLOAT)


def _orthogonal(_term: Any, shape: Shape, config: TuningConfig, work: Work) -> TermCost:
    """Products of the new adapters' input sides with all earlier ones', forward and back."""
    columns = sum(inputs for _, inputs in shape.matrices)
    earlier = work.earlier * config.rank
    return TermCost(step_flop=4.0 * config.rank * earlier * columns, device_bytes=earlier * columns * _FLOAT)


_TERMS: Mapping[str, Callable[[Any, Shape, TuningConfig, Work], TermCost]] = {
    "function_vector": _function_vector,
    "distillation": _distillation,
    "feature_distance": _feature_distance,
    "l2sp": _l2sp,
    "ewc": _ewc,
    "kfac": _kfac,
    "orthogonal": _orthogonal,
}


def anchors_flop(shape: Shape, config: TuningConfig) -> float:
    """What the model writes before the first step, for regularizers to hold on to."""
    return forward_flop(shape.weights, _WRITTEN * config.anchors) if config.anchor_source == "own" else 0.0


def averaging_flop(shape: Shape, config: TuningConfig, work: Work) -> float:
    """Over some rows, one gradient more than there are groups, and up to six losses; nothing in the other forms."""
    averaging = config.averaging
    if averaging.form != "sound":
        return 0.0
    tokens = work.tokens * min(averaging.rows, work.rows) / work.rows
    groups = min(averaging.groups, shape.layers)
    return training_flop(shape, config, tokens) * (groups + 1) + forward_flop(shape.weights, 6 * tokens)
