"""One method through one stream: train, ask everything learnt so far, keep what is finished."""

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from bench.streams.methods import Row
from perdure.content import digest_json, write_atomic
from perdure.deltas import Delta, load_delta, save_delta
from perdure.editing import applied
from perdure.measuring.retention import measure_retention
from perdure.measuring.suites import Suite
from perdure.measuring.task_answers import answer_task
from perdure.requests.tasks import Task
from perdure.tuning.config import TuningConfig
from perdure.tuning.grouping import GroupingConfig, Groups
from perdure.tuning.pool import Pool
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.replay import Memory
from perdure.tuning.run import tune
from perdure.tuning.similarity import TfidfEncoder

Hits = list[int]
Heads = Callable[[Any, Any], Sequence[tuple[int, int]]]


@dataclass
class Bench:
    """What all rows share.

    Attributes:
        model: The base; it carries its own weights between rows.
        tokenizer: Its tokenizer.
        settings: Settings of every method, below its own.
        suite: What the model could do before and is asked again at the end.
        heads: Finds the heads that carry skills.
        work: Folder of unfinished work and of cached targets.
        name: What the base is, for the cache.
    """

    model: Any
    tokenizer: Any
    settings: Mapping[str, Any]
    suite: Suite
    heads: Heads
    work: Path
    name: str
    cache: dict[str, Any] = field(default_factory=dict)


def run_row(bench: Bench, row: Row, tasks: Sequence[Task]) -> dict[str, Any]:
    """All figures of a row; taken up where an interruption left it."""
    config = TuningConfig.model_validate(_merged(bench.settings, row.settings))
    key = digest_json([bench.name, row.way, config.model_dump(mode="json"), [task.digest for task in tasks]])
    folder = bench.work / f"{row.name}-{key[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    if row.way == "joint":
        merged = replace(tasks[0], name="joint", train=tuple(row for task in tasks for row in task.train))
        stages = [(merged, list(tasks))]
    else:
        stages = [(task, list(tasks[: place + 1])) for place, task in enumerate(tasks)]
    return {"row": row.name, "key": key, **_through(bench, row, config, stages, folder)}


def _through(
    bench: Bench, row: Row, config: TuningConfig, stages: Sequence[tuple[Task, list[Task]]], folder: Path
) -> dict[str, Any]:
    carried = _Pooled(bench, folder) if row.way == "pool" else _Summed(one=row.way == "one")
    results: list[dict[str, Any]] = []
    states: dict[str, Any] = {}
    memory = Memory()
    for place, (task, known) in enumerate(stages):
        file = folder / f"{place}.json"
        if file.is_file():
            carried.add(task, load_delta(folder / f"{place}.safetensors"), again=True)
            states = _states(folder, place)
        else:
            delta, states, cpu = _learn(bench, config, carried, task, states, memory, f"{folder.name}-{place}")
            save_delta(delta, folder / f"{place}.safetensors")
            _keep_states(states, folder, place)
            carried.add(task, delta, again=False)
            cells = {other.name: carried.ask(bench, other) for other in known}
            general = carried.general(bench, last=place == len(stages) - 1)
            found = {"task": task.name, "cells": cells, "general": general, "cpu": cpu, "notes": delta.notes}
            write_atomic(file, json.dumps(found).encode())
        if config.replay.share:
            memory = memory.with_task(task, config.replay, seed=config.seed)
        results.append(json.loads(file.read_text()))
    return {"stages": results, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


def _learn(
    bench: Bench, config: TuningConfig, carried: Any, task: Task, states: Any, memory: Memory, name: str
) -> tuple[Delta, Any, float]:
    around = Surroundings(
        accumulated=carried.total,
        earlier=carried.parts,
        states=states,
        find_heads=bench.heads,
        cache=bench.work / "targets",
        model_id=f"{bench.name}-{name}",
    )
    started = time.process_time()
    with carried.before(bench, task) as start:
        tuned = tune(
            bench.model,
            bench.tokenizer,
            task,
            config,
            around,
            memory=memory.chosen(task, config.replay, seed=config.seed),
            start=start,
        )
    return tuned.delta, tuned.states, time.process_time() - started


class _Summed:
    """Changes that add up in the weights; or one adapter that goes on."""

    def __init__(self, *, one: bool) -> None:
        self.total, self.parts, self._one = Delta(), [], one

    @contextmanager
    def before(self, bench: Bench, _task: Task) -> Iterator[Delta | None]:
        """What the task is trained on: the model with all changes, or the adapter to go on with."""
        if self._one:
            yield self.total if self.parts else None
            return
        with applied(bench.model, self.total):
            yield None

    def add(self, _task: Task, delta: Delta, *, again: bool) -> None:
        """One more task is learnt."""
        self.parts.append(delta)
        self.total = delta if self._one else self.total + delta

    def ask(self, bench: Bench, task: Task) -> dict[str, Any]:
        """The answers to a task's test rows."""
        with applied(bench.model, self.total):
            return _asked(bench, task)

    def general(self, bench: Bench, *, last: bool) -> dict[str, Hits]:
        """The answers to the suite, after the last task."""
        if not last:
            return {}
        with applied(bench.model, self.total):
            return general_hits(bench)


class _Pooled:
    """A frozen base and adapters, one for each group of instructions; every request is routed."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.total, self.parts = Delta(), []
        self._folder, self._groups = folder / "pool", Groups(TfidfEncoder.fitted(), GroupingConfig())
        count = sum(parameter.numel() for parameter in bench.model.parameters())
        if (self._folder / "router.json").is_file():
            import shutil

            shutil.rmtree(self._folder)
        self._pool = Pool.create(self._folder, self._groups, base=bench.name, base_parameters=count)

    @contextmanager
    def before(self, bench: Bench, task: Task) -> Iterator[None]:
        """The base with the adapter of the group that the task joins, where it has one."""
        joined = self._pool.join(task.name, [task.instruction])
        self._joined = joined
        known = Delta() if joined.opened else self._pool.delta(joined.group)
        with applied(bench.model, known):
            yield None

    def add(self, task: Task, delta: Delta, *, again: bool) -> None:
        """The group's adapter, with the task learnt."""
        joined = self._pool.join(task.name, [task.instruction]) if again else self._joined
        known = Delta() if joined.opened else self._pool.delta(joined.group)
        self._pool.put(joined.group, known + delta, task.name)
        self.parts.append(delta)

    def ask(self, bench: Bench, task: Task) -> dict[str, Any]:
        """Each test row answered by the adapter that it is routed to."""
        router, found = self._pool.router(), {}
        for example in task.test:
            found.setdefault(router.route(example.messages[-2].content).group, []).append(example)
        joined: dict[str, Any] = {"exact": [], "rouge": [], "texts": [], "routes": {}}
        for group, examples in found.items():
            with applied(bench.model, self._pool.delta(group)) if group else nullcontext():
                part = _asked(bench, replace(task, test=tuple(examples)))
            for name in ("exact", "rouge", "texts"):
                joined[name] += part[name]
            joined["routes"][str(group)] = len(examples)
        return joined

    def general(self, bench: Bench, *, last: bool) -> dict[str, Hits]:
        """The suite, every item by the adapter it is routed to; items that fall back are the base's."""
        if not last:
            return {}
        router = self._pool.router()
        answers = _general(bench)
        groups = [router.route(_request(bench, part, answer.item)).group for part, answer in answers]
        for group in sorted({group for group in groups if group}):
            with applied(bench.model, self._pool.delta(group)):
                own = _general(bench)
            answers = [own[place] if groups[place] == group else one for place, one in enumerate(answers)]
        return _hits(answers)


def _asked(bench: Bench, task: Task) -> dict[str, Any]:
    answers = answer_task(bench.model, bench.tokenizer, task.test)
    return {
        "exact": [int(answer.exact) for answer in answers],
        "rouge": [round(answer.rouge, 4) for answer in answers],
        "texts": [answer.text[:80] for answer in answers[:5]],
    }


def general_hits(bench: Bench) -> dict[str, Hits]:
    """Right and wrong per item: `zero-shot` (facts and instructions) and `in context` (functions by examples)."""
    return _hits(_general(bench))


def _general(bench: Bench) -> list[tuple[str, Any]]:
    """The answers to all items of the suite, with their parts, always in the same order."""
    parts = measure_retention(bench.model, bench.tokenizer, bench.suite)
    return [(name, answer) for name, answers in sorted(parts.items()) for answer in answers]


def _hits(answers: Sequence[tuple[str, Any]]) -> dict[str, Hits]:
    found: dict[str, Hits] = {"zero-shot": [], "in context": []}
    for name, answer in answers:
        found["in context" if name.startswith("functions.") else "zero-shot"].append(int(answer.ok))
    return found


def _request(bench: Bench, part: str, item: str) -> str:
    """What a router reads of an item: the question, or the examples and the question."""
    if not part.startswith("functions."):
        return item
    shown = bench.suite.functions[part.removeprefix("functions.")][:10]
    return "".join(f"Q: {pair.input}\nA: {pair.output}\n\n" for pair in shown) + f"Q: {item}\nA:"


def _merged(below: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {**below, **given}


def _keep_states(states: Mapping[str, Any], folder: Path, place: int) -> None:
    for name, state in states.items():
        save_file(dict(state), folder / f"{place}.state.{name}.safetensors")


def _states(folder: Path, place: int) -> dict[str, Any]:
    return {file.name.split(".")[2]: load_file(file) for file in sorted(folder.glob(f"{place}.state.*.safetensors"))}
