"""Gates on what a tuned lineage forgot of earlier tasks."""

import pytest

import tuning_tasks
from perdure.governance import default_policy_text, judge, parse_policy
from perdure.measuring.outcomes import Outcomes, TaskReply
from perdure.measuring.report import Report
from perdure.measuring.task_measures import Answered, Beside, LineageTask, StageCells, build_tasks, cell_of
from shops import LAX

POLICY = parse_policy(default_policy_text())
N = 1000


def measured(*kept, n=N, name="task"):
    """One earlier task for each given number of answers, of n right when it was learnt, that are right now."""
    count = len(kept) + 1
    rows = tuple(tuning_tasks.example(f"question {k}", "yes") for k in range(n))
    tasks = [LineageTask(str(k), name, "", 9, f"v{k + 1}", rows) for k in range(count)]

    def outcomes(hits):
        given = {
            task.digest: tuple(TaskReply(text="x", exact=k < hit, rouge=float(k < hit)) for k in range(n))
            for task, hit in zip(tasks, hits, strict=True)
        }
        return Outcomes(tasks=given)

    learnt, now = outcomes([n] * count), outcomes([*kept, n])
    stages = [
        StageCells(f"v{k}", str(k - 1) if k else "", {d: cell_of(r) for d, r in learnt.tasks.items()})
        for k in range(count)
    ]
    last = StageCells(f"v{count}", str(count - 1), {d: cell_of(r) for d, r in now.tasks.items()})
    found = build_tasks(tasks, [*stages, last], Answered(learnt, now), Beside())
    return Report(version="v", version_id="0" * 64, parent="v0", base="v0", model="m", request={}, tasks=found)


def gates(report, policy=POLICY):
    return {gate.gate: gate for gate in judge(report, policy).verdicts}


@pytest.mark.parametrize(("kept", "verdict"), [(N, "pass"), (985, "pass"), (950, "inconclusive"), (900, "fail")])
def test_forgetting_is_judged_by_its_whole_interval(kept, verdict):
    gate = gates(measured(kept))["earlier tasks"]
    assert gate.verdict == verdict
    assert gate.reason.startswith(f"{(N - kept) / 10:.1f} (")
    assert "n = 1000" in gate.reason


def test_a_mean_does_not_hide_one_task_that_is_lost():
    found = gates(measured(800, N, N, N, N, N, name="returns"))
    assert found["earlier tasks"].verdict == "pass"
    assert found["task kept: returns (v1)"].verdict == "fail"
    assert found["task kept: returns (v2)"].verdict == "pass"


def test_few_questions_cannot_pass():
    assert gates(measured(8, n=8))["task kept: task (v1)"].verdict == "inconclusive"


def test_the_first_task_and_versions_without_tasks_have_no_such_gate():
    none = Report(version="v", version_id="0" * 64, parent="v0", base="v0", model="m", request={})
    for report in (measured(), none):
        assert not [gate for gate in gates(report) if "task" in gate]


def test_policies_of_before_load_have_the_digest_that_they_had_and_set_no_limit():
    old = parse_policy(LAX)
    assert old.tasks is None
    assert "tasks" not in old.model_dump(exclude_none=True)
    assert not [gate for gate in gates(measured(0), old) if "task" in gate]
    assert parse_policy(LAX + "[tasks]\nforgotten=0.1\ntask_lost=0.2\n").digest != old.digest
