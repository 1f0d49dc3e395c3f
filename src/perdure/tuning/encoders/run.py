"""From a labelled set to a delta: items, head, the weights under training, the penalties, the Trainer, the averaging.

Shape suffixes: N items, C classes, D features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.deltas import Delta
from perdure.errors import RequestError, SettingError, TuneError
from perdure.models.encoders import Encoder
from perdure.requests.concepts import Probe, Unlabelled
from perdure.tuning import processes
from perdure.tuning.encoders.classifier import Classifier
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.heads import Head, probe_head, random_head, zero_shot_head
from perdure.tuning.encoders.item_run import ItemRun
from perdure.tuning.encoders.prepared import COUNTS, Prepared, prepare_items
from perdure.tuning.encoders.rates import with_rate
from perdure.tuning.encoders.trainer import ItemTrainer, optimizer_of
from perdure.tuning.encoders.weights import encoder_attached
from perdure.tuning.encoding import IGNORED
from perdure.tuning.preparing import Clock, last_checkpoint, telling_memory, working_folder
from perdure.tuning.reading import evaluating, evenly
from perdure.tuning.regularizer import State, Surroundings
from perdure.tuning.run import Log, carried_out
from perdure.tuning.trainer import Telling, Term, arguments

_AT_ONCE = 64
_ASKED = 128  # items by whose loss a collapse is seen


@dataclass(frozen=True)
class TunedEncoder:
    """What a labelled set taught.

    Attributes:
        delta: The change of the encoder's tensors, with notes of the training.
        head: The head that goes with it.
        start: The head that the training started from.
        states: From a regularizer's name to what later sets need to know, after this one.
        alone: The change before it was averaged with the weights of before.
        alone_head: The head before it was averaged.
    """

    delta: Delta
    head: Head
    start: Head
    states: Mapping[str, State] = field(default_factory=dict)
    alone: Delta = field(default_factory=Delta)
    alone_head: Head | None = None

    @property
    def notes(self) -> Mapping[str, Any]:
        """Facts about the training: losses, penalties, averaging, time."""
        return self.delta.notes


def tune_encoder(
    encoder: Encoder,
    probe: Probe,
    config: EncoderTuningConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
    *,
    known: Sequence[Head] = (),
    anchors: Unlabelled | None = None,
    anchor_weights: Sequence[float] | None = None,
    work: Path | None = None,
) -> TunedEncoder:
    """The change that learning a labelled set makes; the encoder comes back as it was.

    Args:
        encoder: The encoder, without adapters.
        probe: What is taught: its train part; the test part is not looked at.
        config: The settings.
        around: What the tuning stands on; its `original` opens an encoder.
        known: Heads of earlier sets, whose answers distillation holds; where there are none, the answers of a linear
            probe of the features before.
        anchors: Items that regularizers hold on to besides, not learnt: some stand beside each batch.
        anchor_weights: How much each counts where it is held; a task's own items count 1.
        work: Folder of checkpoints; a training that was interrupted goes on from the last one there.

    Raises:
        RequestError: Nothing to learn from, or an item that cannot be read.
        SettingError: Settings that do not fit the encoder.
        TuneError: The loss is not a number, the training unlearnt what its head knew, or memory ran out.
    """
    chosen = with_rate(config or EncoderTuningConfig(), encoder, probe.side)
    clock = Clock()
    with (
        torch.random.fork_rng(devices=[]),
        item_run(encoder, probe, chosen, around, known=known, anchors=anchors, anchor_weights=anchor_weights) as run,
        working_folder(work) as folder,
        telling_memory(chosen),
    ):
        tuned = carried_out(
            run, chosen, clock, lambda terms: _trained(run, terms, chosen, folder, kept=work is not None)
        )
        head, start = run.model.head(), run.model.start
        blended = head.blended(start, chosen.averaging.ratio) if chosen.averaging.form == "ratio" else head
        return TunedEncoder(tuned.delta, blended, start, tuned.states, run.trained.delta(), head)


@contextmanager
def item_run(
    encoder: Encoder,
    probe: Probe,
    config: EncoderTuningConfig,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
    *,
    known: Sequence[Head] = (),
    anchors: Unlabelled | None = None,
    anchor_weights: Sequence[float] | None = None,
) -> Iterator[ItemRun]:
    """While open, a labelled set about to be learnt; afterwards the encoder is as it was. Arguments: `tune_encoder`.

    The encoder is in evaluation mode all the while.
    """
    _check(probe, anchors, anchor_weights)
    if around.cache is not None and not around.model_id:
        around = replace(around, model_id=encoder.digest)
    items, labels, digests = _rows(encoder, probe, anchors, around)
    held = None if anchor_weights is None else [1.0] * len(probe.train) + list(anchor_weights)
    dtype = next(encoder.model.parameters()).dtype
    with evaluating(encoder.model):
        start = _start(encoder, probe, config, items)
        if not known and any(name == "distillation" for name, _ in config.terms()):
            known = [start if config.head != "random" else _probe_head(encoder, probe, items, config.seed)]
        with encoder_attached(encoder, probe.side, config, items) as (adapted, trained):
            network = Classifier(encoder, probe.side, start, known, dtype=dtype).eval()
            yield ItemRun(network, items, labels, digests, trained, around, known, adapted, held)


def interpolated(tuned: TunedEncoder, share: float) -> tuple[Delta, Head]:
    """The change and the head with this share of the weights of before: WiSE-FT, for any share after one training.

    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022: θ = share · θ_before + (1 − share) · θ, the
    head included.

    Raises:
        SettingError: A share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise SettingError(f"the share of the weights of before must lie in [0, 1]; given {share}")
    return tuned.alone * (1 - share), (tuned.alone_head or tuned.head).blended(tuned.start, share)


class _Joined(Sequence[Any]):
    """The items of several sets, opened when asked for."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self._places = [(part, place) for part in parts for place in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        part, place = self._places[number]
        return part[place]


def _check(probe: Probe, anchors: Unlabelled | None, weights: Sequence[float] | None) -> None:
    if processes.count() > 1:
        raise SettingError("an encoder is tuned in one process; leave torchrun out")
    if not len(probe.train):
        raise RequestError(f"set {probe.name!r} has nothing to learn from")
    if anchors is not None and anchors.side != probe.side:
        raise RequestError(f"the anchors are {anchors.side}s, and the set {probe.name!r} is of {probe.side}s")
    if weights is not None and len(weights) != (0 if anchors is None else len(anchors)):
        raise SettingError(f"{len(weights)} weights for {0 if anchors is None else len(anchors)} anchors")


def _rows(
    encoder: Encoder, probe: Probe, anchors: Unlabelled | None, around: Surroundings
) -> tuple[Prepared, list[int], list[str]]:
    """The set's items and then the anchors as the model reads them, with their classes and identities."""
    parts = [probe.train.items, *([anchors.items] if anchors is not None else [])]
    every = parts[0] if len(parts) == 1 else _Joined(parts)
    digests = [digest for part in parts for digest in part.digests]
    labels = [*map(int, probe.train.labels_N), *[IGNORED] * (len(anchors) if anchors is not None else 0)]
    items = prepare_items(encoder, probe.side, every, digests, cache=around.cache, progress=around.progress)
    return items, labels, digests


def _start(encoder: Encoder, probe: Probe, config: EncoderTuningConfig, items: Prepared) -> Head:
    """The head that the training starts from."""
    if config.head == "linear_probe":
        return _probe_head(encoder, probe, items, config.seed)
    if config.head == "zero_shot":
        return zero_shot_head(encoder, probe.classes, config.templates)
    return random_head(_pooled(encoder, probe, items, [0]).shape[1], probe.classes, config.seed)


def _probe_head(encoder: Encoder, probe: Probe, items: Prepared, seed: int) -> Head:
    numbers = range(len(probe.train))
    pooled_ND = torch.cat(
        [_pooled(encoder, probe, items, numbers[at : at + _AT_ONCE]) for at in range(0, len(numbers), _AT_ONCE)]
    )
    return probe_head(pooled_ND, probe.train.labels_N.tolist(), probe.classes, seed)


@torch.no_grad()
def _pooled(encoder: Encoder, probe: Probe, items: Prepared, numbers: Sequence[int]) -> Tensor:
    """What a probe reads of these items, float32 on the CPU."""
    kind = next(encoder.model.parameters()).dtype
    inputs = {name: value.to(encoder.device) for name, value in items.batch(numbers).items() if name != COUNTS}
    inputs = {name: value.to(kind) if value.is_floating_point() else value for name, value in inputs.items()}
    return encoder.seen(probe.side, inputs).pooled_BD.float().cpu()


def _trained(
    run: ItemRun, terms: Sequence[Term], config: EncoderTuningConfig, folder: Path, *, kept: bool
) -> tuple[Log, Delta]:
    """The training itself: its log, and the change at its end."""
    anchors = sum(run.anchors)
    args = arguments(config, folder, run.model.device, len(run.labels) - anchors, kept=kept)
    beside = config.beside(config.batch_size, anchors)
    trainer = ItemTrainer(run, args, terms, beside=beside, optimizers=(optimizer_of(run, config), None))
    trainer.add_callback(Telling(run.around.progress, "training"))
    before = task_loss(run)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, "trainer_state.json"))
    run.model.eval()
    check_learnt(before, task_loss(run), len(run.model.start.classes), config)
    return trainer.figures(), run.trained.delta().check_finite()


@torch.no_grad()
def task_loss(run: ItemRun) -> float:
    """The mean cross-entropy of some items that are learnt, evenly spaced, as the network is now; nats."""
    parts = run.batches(evenly(run.learnt, _ASKED))
    losses = [run.forward(run.model, run.batch(part)).losses() for part in parts]
    return float(torch.cat(losses).double().mean())


def check_learnt(before: float, after: float, classes: int, config: EncoderTuningConfig) -> None:
    """Refuse a training that collapsed.

    A training lowers the loss of the items that it learns. It collapsed where their loss ended three quarters of the
    way from its start to ln C, that of a guess, or beyond; and by a quarter of ln C above the start at least, so that
    a start that knows no more than a guess is not held against it.

    Args:
        before: The loss of items that are learnt, before the training.
        after: Of the same items after it.
        classes: Between how many classes they are told.
        config: The settings, for the message.

    Raises:
        TuneError: It collapsed.
    """
    guess = math.log(max(classes, 2))
    limit = before + max(0.75 * (guess - before), 0.25 * guess)
    if after <= limit:
        return
    raise TuneError(
        f"the training collapsed: the loss of items that it learnt went from {before:.2f} to {after:.2f}, and a guess "
        f"has {guess:.2f}; lower learning_rate to a tenth (now {config.learning_rate:g}), with a warm-up (warmup=0.1). "
        "Nothing was stored"
    )
