"""An invented lineage that was tuned on three tasks one after another, measured at its last version."""

import random

import report_sample

import tuning_tasks
from perdure.measuring.continual import FeatureDrift, Training
from perdure.measuring.outcomes import Answer, Outcomes, TaskReply
from perdure.measuring.report import Verdict
from perdure.measuring.shares import Estimate
from perdure.measuring.task_measures import Answered, Beside, LineageTask, StageCells, build_tasks, cell_of

NAMES = ("returns", "warranty letters", "sentiment of reviews")
# Right answers of 100: a row a version (v0 to v3), a column a task.
RIGHT = ((4, 0, 51), (82, 3, 50), (74, 88, 55), (71, 84, 91))
N = 100


def task(place, name, n=N):
    rows = tuple(
        tuning_tasks.example(f"A customer writes letter {k} about {name}. What is to be done?", f"Rule {k % 7}")
        for k in range(n)
    )
    return LineageTask(f"{place:x}" * 64, name, f"Answer the question about {name}.", 400, f"v{place + 1}", rows)


def replies(right, seed, n=N):
    drawn = random.Random(seed)
    hits = [True] * right + [False] * (n - right)
    return tuple(
        TaskReply(
            text=f"Rule {k % 7}" if hit else "I do not know.", exact=hit, rouge=1.0 if hit else drawn.random() / 2
        )
        for k, hit in enumerate(hits)
    )


def general(ok):
    parts = {"functions.present_past": 50, "facts.prompt": 40, "instructions": 10}
    return {
        name: tuple(Answer(item="i", expected="e", written="w", ok=k < round(ok * n)) for k in range(n))
        for name, n in parts.items()
    }


def log(steps=60):
    drawn = random.Random(3)
    rows = []
    for step in range(1, steps + 1):
        row = {"step": 5.0 * step, "loss": 3 * 0.96**step + 0.2 + drawn.random() / 10, "learning_rate": 2e-4}
        row["regularizer/feature_distance"] = 0.02 * (1 - 0.95**step)
        row["regularizer/function_vector"] = 0.4 * (1 - 0.97**step) + drawn.random() / 50
        rows.append(row)
        if step % 20 == 0:
            rows.append({"step": 5.0 * step, "eval_loss": 3 * 0.965**step + 0.3})
    return tuple(rows)


def tasks(names=NAMES, right=RIGHT, beside=None, general_ok=(0.8, 0.78, 0.82)):
    """The measures of the last version of a lineage with these tasks and shares of right answers."""
    learnt = [task(place, name) for place, name in enumerate(names)]
    outcomes = [
        Outcomes(
            tasks={
                given.digest: replies(count, row, len(given.test)) for given, count in zip(learnt, counts, strict=True)
            }
        )
        for row, counts in enumerate(right)
    ]
    stages = []
    for row, given in enumerate(outcomes):
        known = learnt if row in (0, len(right) - 2, len(right) - 1) else learnt[:row]
        cells = {each.digest: cell_of(given.tasks[each.digest]) for each in known}
        stages.append(StageCells(f"v{row}", learnt[row - 1].digest if 0 < row <= len(learnt) else "", cells))
    sides = [
        given.model_copy(update={"retention": general(ok)})
        for given, ok in zip((outcomes[-2], outcomes[-1], outcomes[0]), general_ok, strict=True)
    ]
    base = sides[2] if len(right) > 2 else None
    drift = FeatureDrift(
        mean=Estimate(value=0.031, low=0.028, high=0.034, n=48), blocks=(5, 11, 17, 23, 29),
        by_block=(0.008, 0.02, 0.03, 0.04, 0.057),
    )  # fmt: skip
    training = Training(log=log(), averaging={"form": "sound", "share": 0.2}, seconds=318.4, rows=400)
    beside = beside or Beside(drift=drift, training=training)
    return build_tasks(learnt, stages, Answered(sides[0], sides[1], base), beside)


def report(found=None):
    """The report of a tuned version: no fact was taught."""
    request = {"kind": "tuning", "task": {"name": NAMES[-1], "rows": 400}, "config": {"method": "lora", "rank": 8}}
    verdict = Verdict(gate="earlier tasks", verdict="inconclusive", reason="7.5 (3.0 to 12.0, n = 200) points")
    return report_sample.full_report(based=True).model_copy(
        update={
            "version": "v3", "parent": "v2", "base": "v0", "edits": None, "ripple": None, "request": request,
            "tasks": tasks() if found is None else found, "verdicts": (verdict,), "verdict": "inconclusive",
        }
    )  # fmt: skip
