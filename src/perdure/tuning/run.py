"""From a task to a delta: rows, the weights under training, the penalties, the Trainer, the averaging."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perdure.deltas import Delta
from perdure.errors import RequestError, SettingError
from perdure.models import layout_of
from perdure.models.tokens import positions_of
from perdure.requests.tasks import Example, Task
from perdure.tuning import processes
from perdure.tuning.anchors import anchor_rows
from perdure.tuning.blending import FILE, Averaging, averaged, blend_of
from perdure.tuning.config import TrainingConfig, TuningConfig
from perdure.tuning.encoding import rows_of
from perdure.tuning.preparing import Clock, last_checkpoint, prepared_terms, telling_memory, working_folder
from perdure.tuning.regularizer import Run, State, Surroundings
from perdure.tuning.shown import has_pictures
from perdure.tuning.token_run import TokenRun
from perdure.tuning.trained import Trained, dense_attached, lora_attached
from perdure.tuning.trainer import TaskTrainer, Telling, Term, arguments

Log = list[dict[str, float]]
"""The figures of each logged step."""


@dataclass(frozen=True)
class Tuned:
    """What a task taught.

    Attributes:
        delta: The change, with notes of the training.
        states: From a regularizer's name to what later tasks need to know, after this one.
        alone: The change before it was averaged with the weights of before.
    """

    delta: Delta
    states: Mapping[str, State] = field(default_factory=dict)
    alone: Delta = field(default_factory=Delta)


def tune(
    model: Any,
    tokenizer: Any,
    task: Task,
    config: TuningConfig | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - immutable
    *,
    processor: Any | None = None,
    memory: Sequence[Example] = (),
    start: Delta | None = None,
    work: Path | None = None,
) -> Tuned:
    """The change that a task's training makes; the model comes back as it was.

    Args:
        model: A causal language model, or an image-text model, without adapters.
        tokenizer: Its tokenizer.
        task: What is taught; its validation part watches the training where `patience` is set.
        config: The settings.
        around: What the tuning stands on.
        processor: Of a model that reads images (`perdure.models.load_processor`); needed where examples show any.
        memory: Examples of earlier tasks, seen again among those of this one.
        start: An adapter of an earlier task, which the model does not carry: it is trained on, and the change that
            comes back is the whole of it. Plain training only.
        work: Folder of checkpoints; a training that was interrupted goes on from the last one there.

    Raises:
        RequestError: Rows that are too long, or none; an image that cannot be read.
        SettingError: Settings that do not fit the model.
        TuneError: The loss is not a number, or memory ran out.
    """
    chosen = config or TuningConfig()
    if start is not None and (chosen.terms() or chosen.averaging.form != "none" or chosen.method != "lora"):
        raise SettingError("an adapter that goes on is trained plainly: leave out regularizers and averaging")
    reading: dict[str, Any] = {
        "positions": positions_of(model),
        "processor": processor,
        "progress": around.progress,
    }
    rows = rows_of(tokenizer, [*task.train, *memory], chosen.max_tokens, **reading)
    if not rows:
        raise RequestError(f"task {task.name!r} has no rows to learn from")
    rows += anchor_rows(
        model, tokenizer, chosen.anchors, chosen.anchor_source, seed=chosen.seed, progress=around.progress
    )
    held = rows_of(tokenizer, task.validation, chosen.max_tokens, **reading)
    processes.join(model, chosen)
    with attached(model, chosen, start) as (network, trained), working_folder(work) as folder, telling_memory(chosen):
        texts = (example for example in task.train if not has_pictures(example))
        run = TokenRun(network, tokenizer, rows, pairs_of(texts), trained, around, held_out=held)
        tuned = carried_out(
            run, chosen, Clock(), lambda terms: _trained(run, terms, chosen, folder, kept=work is not None)
        )
        return replace(tuned, alone=trained.delta())


def carried_out(
    run: Run, config: TrainingConfig, clock: Clock, train: Callable[[Sequence[Term]], tuple[Log, Delta]]
) -> Tuned:
    """A training from its prepared regularizers to the averaged change, with the CPU seconds of each part.

    Args:
        run: The model and the rows.
        config: The settings.
        clock: Started when the preparation began.
        train: The training itself, held by these terms: its log, and the change at its end.
    """
    terms = prepared_terms(config, run)
    clock.stop("preparing")
    log, delta = train(terms)
    clock.stop("training")
    tuned = _finished(run, terms, config, delta, log)
    clock.stop("averaging")
    return replace(tuned, delta=replace(tuned.delta, notes={**tuned.delta.notes, "cpu_seconds": clock.parts}))


def states_alone(
    model: Any,
    tokenizer: Any,
    task: Task,
    config: TuningConfig,
    change: Delta,
    *,
    names: Iterable[str],
    around: Surroundings,
    processor: Any | None = None,
) -> Mapping[str, State]:
    """What regularizers would have passed on, had the task been the first that they knew of.

    Args:
        model: As it was before the task.
        tokenizer: Its tokenizer.
        task: The task.
        config: The settings of its training, with method=lora.
        change: What it taught: an adapter as the settings have it.
        names: Which states are wanted.
        around: What the task stood on.
        processor: Of a model that reads images.
    """
    wanted = set(names)
    terms = tuple(term for term in config.regularizers if term["kind"] in wanted)
    config = config.model_copy(update={"regularizers": terms})
    rows = rows_of(tokenizer, task.train, config.max_tokens, processor=processor)
    with attached(model, config, change) as (network, trained):
        run = TokenRun(network, tokenizer, rows, [], trained, replace(around, states={}))
        return _finished(run, prepared_terms(config, run), config, change, []).states


def _trained(
    run: TokenRun, terms: Sequence[Term], config: TuningConfig, folder: Path, *, kept: bool
) -> tuple[Log, Delta]:
    """The training itself: its log, and the change at its end."""
    network = run.model
    anchors = sum(run.anchors)
    watching = config.patience is not None and bool(run.held_out)
    args = arguments(
        config,
        folder,
        run.base.device,
        len(run.rows) - anchors,
        watching=watching,
        kept=kept and config.sharding == "none",  # the Trainer takes no checkpoint of a sharded model
        checkpointing=config.gradient_checkpointing,
    )
    beside = config.beside(args.per_device_train_batch_size, anchors)
    trainer = TaskTrainer(run, args, terms, held=len(run.held_out), beside=beside)
    trainer.add_callback(Telling(run.around.progress, "training"))
    steps = Averaging(run.trained, config.averaging, folder)
    if steps.each_step:
        trainer.add_callback(steps)
    if watching:
        from transformers import EarlyStoppingCallback

        trainer.add_callback(EarlyStoppingCallback(config.patience))
    processes.check_in_force(network, trainer.accelerator.num_processes, config)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, FILE if steps.each_step else "trainer_state.json"))
    processes.wait()
    network.eval()
    return trainer.figures(), steps.averaged(run.trained.delta()).check_finite()


def _finished(run: Run, terms: Sequence[Term], config: TrainingConfig, delta: Delta, log: Log) -> Tuned:
    """What is kept: the averaged change, and what the regularizers pass on."""
    states: dict[str, State] = dict(run.around.states)
    blend = blend_of(run, config.averaging)
    with averaged(run.trained, blend.shares):
        for term in terms:
            state = term.regularizer.after_task(run)
            if state:
                states[term.name] = state
    averaging = dict(blend.notes) or {"form": config.averaging.form}
    notes = {"log": log, "averaging": averaging, "rows": len(run.anchors)}
    return Tuned(replace(blend.applied(delta), notes=notes).check_finite(), states)


def target_modules(model: Any, endings: Sequence[str] | None) -> list[str]:
    """The names of the modules that are trained: all projections of the blocks, or those with these endings.

    Raises:
        SettingError: No module of the blocks has one of the endings; the message lists those that there are.
    """
    layout = layout_of(model)
    found = [
        matrix.name.removesuffix(".weight")
        for layer in range(len(layout))
        for matrix in (*layout.attention_in[layer], layout.attention_out[layer], *layout.mlp_matrices[layer])
    ]
    found = list(dict.fromkeys(found))
    if endings is None:
        return found
    chosen = [name for name in found if any(name == end or name.endswith(f".{end}") for end in endings)]
    missing = [end for end in endings if not any(name == end or name.endswith(f".{end}") for name in found)]
    if missing or not chosen:
        known = sorted({name.rpartition(".")[2] for name in found})
        raise SettingError(f"targets: no projection ends in {missing[0]!r}. There are: {', '.join(known)}")
    return chosen


@contextmanager
def attached(model: Any, config: TuningConfig, start: Delta | None = None) -> Iterator[tuple[Any, Trained]]:
    """While open, the network with what the settings train, and these weights; afterwards the model is as it was."""
    modules = target_modules(model, config.targets)
    if config.method == "lora":
        shape: dict[str, Any] = {
            "rank": config.rank,
            "alpha": config.alpha,
            "dropout": config.dropout,
            "seed": config.seed,
        }
        with lora_attached(model, modules, **shape, start=start) as adapters:
            yield adapters
        return
    with dense_attached(model, [f"{name}.weight" for name in modules]) as whole:
        yield whole


def pairs_of(examples: Iterable[Example]) -> list[tuple[str, str]]:
    """Inputs and outputs without the instruction, for prompts with examples."""
    found = []
    for example in examples:
        asked = example.messages[-2].content.removeprefix(example.instruction).strip()
        found.append((asked or example.messages[-2].content, example.answer))
    return found
