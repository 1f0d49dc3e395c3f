"""What is kept of earlier tasks: every row alike, within rows or bytes."""

import math

import pytest

from perdure.requests.tasks import Task
from perdure.tuning.config import ReplayConfig
from perdure.tuning.replay import Memory, remembered, size_of
from tuning_tasks import example

TASKS = [
    Task(str(k), "", tuple(example(f"{k}task{i:03d} {'x' * (i % 9)}", "y") for i in range(100)), (), ())
    for k in range(5)
]


def kept(config, seed, start=Memory(), tasks=TASKS, again=False):  # noqa: B008 - immutable
    memory = start
    for task in tasks:
        memory = memory.with_task(task, config, seed=seed)
        memory = remembered(memory.as_json()) if again else memory
    return memory


def by_task(memory):
    return [sum(row.messages[0].content[0] == str(k) for row in memory.rows) for k in range(5)]


@pytest.mark.parametrize("bounds", [{"size": 20}, {"size_bytes": 300}])
def test_every_task_is_kept_alike(bounds):
    """400 samples of about 20 of 500 rows: 1600 rows a task, binomial, five standard deviations either way."""
    counts = [by_task(kept(ReplayConfig(**bounds), seed)) for seed in range(400)]
    total = sum(map(sum, counts))
    for task in zip(*counts, strict=True):
        assert abs(sum(task) - total / 5) < 5 * math.sqrt(total * 0.2 * 0.8)


def test_it_is_bounded_in_rows_and_bytes():
    config = ReplayConfig(size_bytes=300)
    memory = kept(config, 0)
    assert memory.seen == 500
    assert 280 < sum(map(size_of, memory.rows)) <= 300
    assert len(kept(ReplayConfig(size=15, size_bytes=300), 0).rows) == 15
    assert kept(config, 0) == memory == kept(config, 0, again=True)
    assert kept(config, 1) != memory


def test_a_row_larger_than_all_bytes_does_not_empty_it():
    big = Task("big", "", (example("z" * 500, "y"),), (), ())
    memory = kept(ReplayConfig(size_bytes=300), 0, tasks=[*TASKS, big])
    assert memory.seen == 501
    assert sum(map(size_of, memory.rows)) > 280


def test_more_room_later_does_not_prefer_later_rows():
    counts = []
    for seed in range(200):
        small = kept(ReplayConfig(size=20), seed, tasks=TASKS[:4])
        counts.append(by_task(kept(ReplayConfig(size=100), seed, small, TASKS[4:])))
    assert sum(count[4] for count in counts) / sum(map(sum, counts)) == pytest.approx(0.2, abs=0.03)


def test_a_memory_from_before_rows_had_keys_is_read():
    """Its 20 of 400 rows count as such a sample, so that the next task's rows enter with their due share."""
    shares = []
    for seed in range(200):
        old = kept(ReplayConfig(size=20), seed, tasks=TASKS[:4]).as_json()
        read = remembered({"seen": old["seen"], "rows": old["rows"]})
        assert sorted(map(str, read.rows)) == sorted(map(str, remembered(old).rows))
        shares.append(by_task(kept(ReplayConfig(size=20), seed, read, TASKS[4:]))[4] / 20)
    assert sum(shares) / len(shares) == pytest.approx(0.2, abs=0.03)
