"""From tasks to candidates: each task trained on the version that the one before it left, stored as a delta."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.content import digest_json, digest_tensor
from perdure.deltas import Delta
from perdure.errors import PerdureError, RefusedError, RequestError
from perdure.measuring.skill_comparison import Bench, functions_named, traits_of
from perdure.requests.concepts import Probe
from perdure.requests.tasks import Example, Task
from perdure.settings import checked
from perdure.tuning import processes
from perdure.tuning.config import TuningConfig
from perdure.tuning.regularizer import State, Surroundings
from perdure.tuning.replay import Memory, remembered
from perdure.tuning.trackers import check_trackers
from perdure.vectors import VectorConfig, universal_heads
from perdure.workspace.pools import refuse_pool
from perdure.workspace.records import Version
from perdure.workspace.seeing import processor_for
from perdure.workspace.skills import bench_of, side_of
from perdure.workspace.updates import applied_since_base

if TYPE_CHECKING:
    from perdure.tuning.run import Tuned
    from perdure.workspace.workspace import Workspace

TUNING = "tuning"
TEST_ROWS = 200  # of a task that a version keeps, so that later ones can be asked them
_HEAD_SKILLS = ("present_past", "singular_plural", "capitalize", "choose_first_of_3", "choose_last_of_3", "comparative")


@dataclass(frozen=True)
class TuningPlan:
    """Everything that decides what a tuning gives.

    Attributes:
        parent: The id of the version to tune.
        task: The task.
        config: The resolved settings.
    """

    parent: str
    task: Task
    config: TuningConfig

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest."""
        return {
            "kind": TUNING,
            "task": {"name": self.task.name, "digest": self.task.digest, "rows": len(self.task.train)},
            "config": self.config.model_dump(mode="json"),
            "restraint": "none",
            "restraint_config": {"kind": "none"},
        }

    @property
    def digest(self) -> str:
        """What names this plan's unfinished work."""
        return digest_json({"parent": self.parent, **self.recipe()})


def plan_tuning(shop: "Workspace", task: Task, settings: Mapping[str, Any], *, on: "str | Version" = "") -> TuningPlan:
    """What a tuning would do; nothing is computed.

    Raises:
        RequestError: The task has nothing to learn from.
        RefusedError: The version stands on a rejected one.
        SettingError: A setting that does not exist or is out of range.
    """
    plan = plan_training(shop, task, settings, on=on)
    refuse_pool(shop.version(plan.parent), "tune it with --pool")
    return plan


def plan_training(
    shop: "Workspace", task: Task, settings: Mapping[str, Any], *, on: "str | Version" = ""
) -> TuningPlan:
    """As `plan_tuning`, for a change that the weights or a pool may take."""
    shop.require_text("a task")
    parent = shop.version(on) if on else shop.newest()
    rejected = shop.rejected(parent)
    if rejected is not None:
        raise RefusedError(f"{parent.name} stands on {rejected.name}, which was rejected; tune another version")
    if not task.train:
        raise RequestError(f"task {task.name!r} has no rows to learn from")
    config = checked(TuningConfig, settings, "tuning")
    check_trackers(config.report_to)
    return TuningPlan(parent.id, task, config)


def carry_out_tuning(shop: "Workspace", plan: TuningPlan, *, actor: str) -> Version:
    """The candidate that a plan gives. An interrupted training of the same plan goes on from its last checkpoint."""
    from perdure.tuning.run import tune  # transformers' Trainer takes seconds to import

    parent = shop.version(plan.parent)
    work = shop.folder / "work" / f"tuning-{plan.digest[:32]}"
    memory = memory_of(shop, parent)
    chosen = memory.chosen(plan.task, plan.config.replay, seed=plan.config.seed)
    started = time.monotonic()
    network, tokenizer = shop.load(parent)
    tuned = tune(
        network,
        tokenizer,
        plan.task,
        plan.config,
        surroundings_of(shop, parent),
        processor=processor_for(shop, parent, [*plan.task.train, *plan.task.validation, *chosen]),
        memory=chosen,
        work=work,
    )
    if plan.config.sharding != "none":
        shop.unload()  # each process holds a part of it now
    made = ""
    if processes.is_first():
        version = _stored(shop, parent, plan, tuned, memory, seconds=time.monotonic() - started, actor=actor)
        keep_states(shop, version, tuned.states)
        shutil.rmtree(work, ignore_errors=True)
        made = version.id
    return shop.version(processes.agreed(made))


def _stored(
    shop: "Workspace",
    parent: Version,
    plan: TuningPlan,
    tuned: "Tuned",
    memory: Memory,
    *,
    seconds: float,
    actor: str,
) -> Version:
    shop.progress("storing the version", 0, 1)
    delta = tuned.delta
    notes = notes_of(plan, tuned, memory, seconds)
    low_rank = {name: change for name, change in delta.changes.items() if change.is_low_rank}
    dense = sorted(name for name, change in delta.changes.items() if not change.is_low_rank)
    version = shop.archive.commit(
        parent,
        delta,
        solved=Delta(low_rank, notes=notes),
        recipe={**plan.recipe(), "dense": dense},
        actor=actor,
    )
    shop.progress("storing the version", 1, 1)
    return version


def notes_of(plan: TuningPlan, tuned: "Tuned", memory: Memory, seconds: float) -> dict[str, Any]:
    """What a version keeps of its task and training: its test rows, its log, and its memory where one is asked for."""
    task = plan.task
    notes = {
        "facts": [],
        "task": {
            "name": task.name,
            "digest": task.digest,
            "instruction": task.instruction,
            "train_rows": len(task.train),
            "test": [example.model_dump(mode="json") for example in task.test[:TEST_ROWS]],
        },
        "training": {**tuned.delta.notes, "seconds": round(seconds, 1)},
    }
    if plan.config.replay.share:
        notes["memory"] = memory.with_task(task, plan.config.replay, seed=plan.config.seed).as_json()
    return notes


def surroundings_of(
    shop: "Workspace", parent: Version, *, carried: Delta | None = None, states: Mapping[str, State] | None = None
) -> Surroundings:
    """What a tuning of a version stands on.

    Args:
        shop: The workspace.
        parent: The version.
        carried: An adapter that its model carries besides its weights.
        states: What regularizers passed on; by the newest tuned version of the lineage when not given.
    """
    adapters = [carried] if carried else []
    line = shop.archive.lineage(parent)
    base = line[0]

    @contextmanager
    def original() -> Iterator[Any]:
        model, _ = shop.load(base, fresh=True)
        yield model

    return Surroundings(
        original=original if adapters or parent.id != base.id else None,
        accumulated=sum(adapters, start=applied_since_base(shop.archive, parent)),
        earlier=[*(shop.archive.solved(step) for step in line[1:]), *adapters],
        states=_states(shop, line) if states is None else states,
        find_heads=lambda _model, _tokenizer: heads_of(shop, base),
        cache=shop.folder / "tuning" / "targets",
        model_id=digest_json([parent.id, _digest(carried)]) if carried else parent.id,
        progress=shop.progress,
    )


def _digest(delta: Delta) -> str:
    parts = {name: [digest_tensor(part) for part in change.tensors()] for name, change in delta.changes.items()}
    return digest_json(parts)


def heads_of(shop: "Workspace", base: Version) -> list[tuple[int, int]]:
    """The heads of the base that carry skills, over some built-in functions; studied once and kept."""
    bench: Bench = bench_of(shop, VectorConfig(clean=40, shuffled=15, validation=8, asked=8))
    found = []
    for function in (one for one in functions_named([]) if one.name in _HEAD_SKILLS):
        traits = traits_of(side_of(shop, base), function, bench)
        if not traits.evidence.reason:
            found.append(traits)
    return [] if not found else list(universal_heads(found, bench.config.heads))


def memory_of(shop: "Workspace", parent: Version) -> Memory:
    """What of earlier tasks was kept, by the newest version of the lineage that kept any."""
    for step in reversed(shop.archive.lineage(parent)[1:]):
        kept = shop.archive.solved(step).notes.get("memory")
        if kept:
            return remembered(kept)
    return Memory()


def _folder(shop: "Workspace", version: Version) -> Path:
    return shop.folder / "tuning" / "states" / version.id


def keep_states(shop: "Workspace", version: Version, states: Mapping[str, State]) -> None:
    """Keep what regularizers pass on, beside the version."""
    for name, state in states.items():
        folder = _folder(shop, version)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.part"
        save_file({key: value.contiguous() for key, value in state.items()}, part)
        part.rename(folder / f"{name}.safetensors")


def _states(shop: "Workspace", line: Sequence[Version]) -> dict[str, dict[str, Tensor]]:
    """What regularizers passed on, by the newest tuned version of the lineage."""
    for step in reversed(line[1:]):
        if step.manifest.recipe.get("kind") == TUNING:
            return kept_states(shop, step)
    return {}


def kept_states(shop: "Workspace", version: Version) -> dict[str, dict[str, Tensor]]:
    """What regularizers passed on with a version, by their names."""
    folder = _folder(shop, version)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {file.stem: load_file(file) for file in files}


def unheld_tasks(shop: "Workspace", version: Version) -> int:
    """How many earlier tasks left a version tuned with kfac no information, so that nothing of them was held.

    Each task passes on what the one before it left, so a task without it breaks the chain for all before itself.
    """
    earlier = reversed(shop.archive.lineage(version)[1:-1])
    tuned = [step for step in earlier if step.manifest.recipe.get("kind") == TUNING]
    held = takewhile(lambda step: (_folder(shop, step) / "kfac.safetensors").is_file(), tuned)
    return len(tuned) - len(list(held))


def kept_tests(shop: "Workspace", version: Version) -> tuple[Example, ...]:
    """The test rows of the task that a version was tuned on; none for other versions."""
    rows = shop.archive.solved(version).notes.get("task", {}).get("test", ())
    return tuple(Example.model_validate(row) for row in rows)


def tune_one(
    shop: "Workspace", task: Task, settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str
) -> Version:
    """A version that learnt a task."""
    return carry_out_tuning(shop, plan_tuning(shop, task, settings, on=on), actor=actor)


def tune_all(
    shop: "Workspace",
    tasks: Sequence[Task | Probe],
    settings: Mapping[str, Any],
    *,
    on: "str | Version" = "",
    actor: str,
    one: Callable[..., Version] = tune_one,
    called: str = "task",
) -> Iterator[Version]:
    """One version per task, each on the one before; those made before an error stay.

    Args:
        shop: The workspace.
        tasks: The tasks, or for an encoder labelled sets, in the order in which they are learnt.
        settings: For each of them alike.
        on: The version that the first one stands on.
        actor: Who asks.
        one: What makes a version of a task.
        called: What messages call it.

    Raises:
        RefusedError: The actor may not change the model.
        PerdureError: A task could not be trained; the message names it and the versions that were made.
    """
    shop.archive.check_permitted("commit", actor)
    made: list[Version] = []
    for task in tasks:
        try:
            made.append(one(shop, task, settings, on=made[-1] if made else on, actor=actor))
        except PerdureError as error:
            done = ", ".join(f"{version.name} ({done.name})" for version, done in zip(made, tasks, strict=False))
            error.args = (f"{called} {task.name!r}: {error}" + (f". Made before it: {done}" if done else ""),)
            raise
        yield made[-1]
