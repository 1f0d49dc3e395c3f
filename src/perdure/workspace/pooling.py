"""Tuning in a pool: a task joins a group, trains on top of its adapter, and shares it where that harms nobody."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json, scratch_folder
from perdure.deltas import Change, Delta
from perdure.errors import RefusedError, SettingError
from perdure.models.tokens import positions_of
from perdure.requests.tasks import Example, Task
from perdure.settings import checked
from perdure.tuning.averaging import refactored
from perdure.tuning.carrying import carried
from perdure.tuning.config import AveragingConfig, TuningConfig
from perdure.tuning.encoding import row_limit, rows_of
from perdure.tuning.grouping import Groups, Joined
from perdure.tuning.merging import Merge, check_merge
from perdure.tuning.pool import Pool
from perdure.tuning.pool_settings import PoolConfig, instructions_of, settings_of
from perdure.tuning.reading import row_losses
from perdure.tuning.regularizer import State
from perdure.tuning.replay import Memory, remembered
from perdure.workspace.pool_changes import POOLED, commit_pool, is_transposed
from perdure.workspace.pool_folder import flat_name
from perdure.workspace.pools import bring, has_pool, opened_pool, weights_id
from perdure.workspace.records import Version
from perdure.workspace.seeing import processor_for
from perdure.workspace.tuning import (
    TuningPlan,
    keep_states,
    kept_states,
    kept_tests,
    notes_of,
    plan_training,
    surroundings_of,
)

if TYPE_CHECKING:
    from perdure.tuning.run import Tuned
    from perdure.workspace.workspace import Workspace

_LONGEST = 1 << 30  # tokens: rows that were kept are asked whole


@dataclass(frozen=True)
class PoolPlan:
    """Everything that decides what a tuning in a pool gives.

    Attributes:
        tuning: Parent, task and settings of the training.
        pool: The settings of the pool.
        joined: The group that the task goes to, if what was there before bears it.
    """

    tuning: TuningPlan
    pool: PoolConfig
    joined: Joined

    @property
    def parent(self) -> str:
        """The id of the version to tune."""
        return self.tuning.parent

    @property
    def task(self) -> Task:
        """The task."""
        return self.tuning.task

    @property
    def config(self) -> TuningConfig:
        """The settings of the training."""
        return self.tuning.config

    def recipe(self) -> dict[str, Any]:
        """The plan as JSON, for the manifest."""
        recipe, pool = self.tuning.recipe(), self.pool.model_dump(mode="json")
        task = {**recipe["task"], "name": self.joined.task}
        return {**recipe, "kind": POOLED, "action": "tune", "task": task, "pool": pool, "group": self.joined.group}


def plan_in_pool(
    shop: "Workspace", tasks: Sequence[Task], settings: Mapping[str, Any], *, on: "str | Version" = ""
) -> list[PoolPlan]:
    """What tuning tasks in a pool, one after the other, would do; nothing is trained.

    Args:
        shop: The workspace.
        tasks: The tasks.
        settings: Of `TuningConfig`, and under `pool` those of `PoolConfig`.
        on: The version to tune; the newest one that was not rejected when not given.

    Raises:
        RequestError: A task has nothing to learn from.
        RefusedError: The version stands on a rejected one.
        SettingError: A setting that does not exist, is out of range, or does not fit the pool that is there.
    """
    given = dict(settings)
    asked = given.pop(POOLED, {})
    if not isinstance(asked, Mapping):
        raise SettingError(f"pool holds settings, such as pool.cap=4; given pool={asked!r}")
    plans = [plan_training(shop, task, given, on=on) for task in tasks]
    if plans and plans[0].config.method != "lora":
        raise SettingError("a pool holds low-rank adapters; leave out method=full (--full)")
    with _copied(shop, shop.version(plans[0].parent), asked) as (pool, config):
        joined = [_joined(pool, plan.task) for plan in plans]
    return [PoolPlan(plan, config, went) for plan, went in zip(plans, joined, strict=True)]


def tune_in_pool(
    shop: "Workspace", task: Task, settings: Mapping[str, Any], *, on: "str | Version" = "", actor: str
) -> Version:
    """A version whose pool learnt a task; its weights are those of the version it stands on.

    The task joins the group that its instructions resemble, or opens one. A fresh adapter is trained on top of the
    group's (for a new group the nearest's), and both together are brought back to its rank. Where the group's earlier
    tasks are surely worse with it, the task opens a group of its own instead, and their adapter stays as it was.
    An interrupted training goes on from its last checkpoint.
    """
    [plan] = plan_in_pool(shop, [task], settings, on=on)
    return carry_out_in_pool(shop, plan, actor=actor)


def carry_out_in_pool(shop: "Workspace", plan: PoolPlan, *, actor: str) -> Version:
    """The candidate that a plan gives.

    Raises:
        RefusedError: The group's earlier tasks do not bear the task, and there may be no further group.
    """
    parent, started = shop.version(plan.parent), time.monotonic()
    with _copied(shop, parent, plan.pool.model_dump(exclude={"kind"})) as (pool, _):
        joined = _joined(pool, plan.task)
        begun = _begin(shop, parent, pool, joined)
        tuned, work = _trained(shop, parent, plan, begun)
        total, error = _summed(begun.adapter, tuned.delta, plan.config.rank)
        merge, unseen = _judged(shop, parent, plan, pool, begun, total)
        group, states = joined.group, tuned.states
        if merge is not None and not merge.merged:
            group = _parted(pool, joined.task, merge)
            states = _states_alone(shop, parent, plan, begun, tuned)
            total, error = _summed(begun.adapter, tuned.alone, plan.config.rank)
        pool.put(group, total, joined.task, transposed=is_transposed(shop, parent), note=f"learnt {joined.task}")
        mine = begun.alone or group == joined.group
        notes = notes_of(plan.tuning, tuned, begun.memory if mine else Memory(), time.monotonic() - started)
        notes["task"]["name"] = joined.task
        notes["pool"] = {
            "group": group,
            "joined": asdict(joined),
            "started_from": begun.group,
            "averaged": not begun.alone and group == joined.group,
            "refactoring_error": error,
            "merge": asdict(merge) if merge else unseen,
            "growth": asdict(pool.growth_report()),
        }
        version = commit_pool(shop, parent, pool, {**plan.recipe(), "group": group}, notes, actor=actor)
    keep_states(shop, version, states)
    shutil.rmtree(work, ignore_errors=True)
    return version


@dataclass(frozen=True)
class _Begun:
    """What a training starts from.

    Attributes:
        task: The task's name in the pool.
        group: The group whose adapter the model carries; None: the base alone.
        adapter: That adapter.
        alone: Whether nothing shares the adapter yet, so that nothing has to be averaged with.
        last: The version that trained that adapter, whose states and memory are gone on with.
        memory: What of the group's rows was kept.
    """

    task: str
    group: str | None
    adapter: Delta
    alone: bool
    last: Version | None
    memory: Memory


def _begin(shop: "Workspace", parent: Version, pool: Pool, joined: Joined) -> _Begun:
    group = joined.nearest if joined.opened else joined.group
    adapter = bring(shop, parent, pool, group) if group else Delta()
    alone = joined.opened or not adapter
    last = None if alone else _brought_by(shop, parent, pool, joined.group)
    kept = shop.archive.solved(last).notes.get("memory") if last else None
    memory = remembered(kept) if kept else Memory()
    return _Begun(joined.task, group if adapter else None, adapter, alone, last, memory)


def _brought_by(shop: "Workspace", parent: Version, pool: Pool, group: str) -> Version:
    """The version that brought the adapter a group has in use: after a rollback not the last that trained it."""
    current = pool.current(group)
    assert current is not None
    folder = flat_name(f"{current.folder}/")
    return next(
        step for step in shop.archive.lineage(parent) if any(name.startswith(folder) for name in step.manifest.files)
    )


def _trained(shop: "Workspace", parent: Version, plan: PoolPlan, begun: _Begun) -> "tuple[Tuned, Path]":
    """The change that the task's training makes on top of what the model carries, and the folder of its work."""
    from perdure.tuning.run import tune  # transformers' Trainer takes seconds to import

    config = plan.config
    if begun.alone:
        config = config.model_copy(update={"averaging": AveragingConfig(form="none")})
    # Not the pool's settings: with a higher cap the same training is taken up where it stopped.
    work = shop.folder / "work" / f"pool-{digest_json([plan.tuning.digest, begun.group, begun.alone])[:32]}"
    network, tokenizer = shop.load(parent)
    states = kept_states(shop, begun.last) if begun.last else {}
    with carried(network, begun.adapter):
        memory = begun.memory.chosen(plan.task, config.replay, seed=config.seed)
        tuned = tune(
            network,
            tokenizer,
            plan.task,
            config,
            surroundings_of(shop, parent, carried=begun.adapter, states=states),
            processor=processor_for(shop, parent, [*plan.task.train, *plan.task.validation, *memory]),
            memory=memory,
            work=work,
        )
    return tuned, work


def _states_alone(
    shop: "Workspace", parent: Version, plan: PoolPlan, begun: _Begun, tuned: "Tuned"
) -> Mapping[str, State]:
    """What regularizers pass on of a task that got a group of its own: nothing of the group it was to share."""
    from perdure.tuning.run import states_alone

    if not tuned.states:
        return {}
    network, tokenizer = shop.load(parent)
    around = surroundings_of(shop, parent, carried=begun.adapter, states={})
    processor = processor_for(shop, parent, plan.task.train)
    with carried(network, begun.adapter):
        return states_alone(
            network,
            tokenizer,
            plan.task,
            plan.config,
            tuned.alone,
            names=tuned.states,
            around=around,
            processor=processor,
        )


def _summed(adapter: Delta, change: Delta, rank: int) -> tuple[Delta, float]:
    """Both together, brought back to the rank, and the largest relative error of that over all matrices."""
    if not adapter:
        return Delta(change.changes), 0.0
    found = {}
    worst = 0.0
    for name, whole in (Delta(adapter.changes) + Delta(change.changes)).changes.items():
        assert whole.low_rank is not None
        kept = refactored(whole.low_rank, rank)
        found[name] = Change(kept.change)
        worst = max(worst, kept.error)
    return Delta(found), worst


def _judged(
    shop: "Workspace", parent: Version, plan: PoolPlan, pool: Pool, begun: _Begun, total: Delta
) -> tuple[Merge | None, dict[str, str] | None]:
    """Whether the group's earlier tasks bear its new adapter; without enough rows of them, why that is not known."""
    if begun.alone or begun.group is None:
        return None, None
    current = pool.current(begun.group)
    members = pool.groups.members(begun.group)
    names = [name for name in (current.tasks if current else ()) if name in members and name != begun.task]
    if not names:
        return None, None
    asked = _kept_rows(shop, parent, {name: pool.groups.tasks[name].digest for name in names})
    network, tokenizer = shop.load(parent)
    read = rows_of(tokenizer, asked, _LONGEST, processor=processor_for(shop, parent, asked))
    rows = [row for row in read if len(row.ids) <= row_limit(_LONGEST, positions_of(network))]
    if len(rows) < 2:
        return None, {"reason": f"not judged: {len(rows)} test rows of {', '.join(sorted(names))} were kept"}
    losses = []
    for adapter in (begun.adapter, total):
        with carried(network, adapter):
            losses.append(row_losses(network, rows, progress=shop.progress, stage="what earlier tasks lose"))
    return check_merge(losses[0], losses[1], allowed=plan.pool.allowed), None


def _kept_rows(shop: "Workspace", parent: Version, digests: Mapping[str, str]) -> list[Example]:
    """The test rows of tasks, each as the newest version that learnt it kept them.

    Args:
        shop: The workspace.
        parent: The version whose lineage learnt them.
        digests: By the tasks' names; empty where a task is told by its name alone.
    """
    found: dict[str, tuple[Example, ...]] = {}
    for step in shop.archive.lineage(parent)[1:]:
        learnt = step.manifest.recipe.get("task", {})
        name = learnt.get("name")
        if name in digests and digests[name] in ("", learnt["digest"]):
            found[name] = kept_tests(shop, step)
    return [row for name in sorted(found) for row in found[name]]


def _parted(pool: Pool, task: str, merge: Merge) -> str:
    """The group of its own that a task gets; the one it was to share keeps the adapter that it has."""
    try:
        return pool.groups.part(task).group
    except SettingError as error:
        raise RefusedError(
            f"the group's earlier tasks do not bear {task}: {merge.reason}. {error}, or allow the loss with "
            "pool.allowed; the training is kept and not done again"
        ) from error


def _joined(pool: Pool, task: Task) -> Joined:
    texts = instructions_of(task)
    if not texts:
        raise SettingError(f"task {task.name!r} has neither instructions nor prompts in words to be grouped by")
    return pool.join(task.name, texts, task.digest)


@contextmanager
def _copied(shop: "Workspace", parent: Version, asked: Mapping[str, Any]) -> Iterator[tuple[Pool, PoolConfig]]:
    """A copy of the parent's pool, or an empty one, with the settings asked for; those not asked for stay."""
    if has_pool(parent):
        with opened_pool(shop, parent) as pool:
            held = settings_of(pool)
            config = checked(PoolConfig, {**held, **asked}, POOLED)
            if config.encoder != held["encoder"]:
                raise SettingError(
                    f"pool: encoder: the pool's groups were made with {held['encoder']} and cannot be compared by "
                    f"{config.encoder}; leave it out, or start a pool on a version without one"
                )
            pool.settle(config.grouping, config.routing)
            yield pool, config
        return
    config = checked(PoolConfig, asked, POOLED)
    numbers = sum(record.numbers for record in parent.manifest.tensors.values())
    with scratch_folder(shop.folder / "tmp") as scratch:
        pool = Pool.create(
            scratch,
            Groups(config.made_encoder(), config.grouping),
            base=weights_id(parent.manifest),
            base_parameters=numbers,
            routing=config.routing,
        )
        yield pool, config
