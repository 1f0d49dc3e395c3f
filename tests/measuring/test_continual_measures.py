"""Tasks of a lineage, measured on tiny models: versions are made by hand, as a tuning notes them."""

import pytest
import torch

import tuning_tasks
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import ModelError
from perdure.measuring.drift import Features, drift_of, read_features
from perdure.measuring.outcomes import Answer, Outcomes, TaskReply
from perdure.measuring.report import Report
from perdure.measuring.task_answers import answer_task
from perdure.measuring.task_measures import (
    CASE_LIMIT,
    Answered,
    Beside,
    LineageTask,
    StageCells,
    build_tasks,
    cell_of,
    training_of,
)

DOWN = "model.layers.{}.mlp.down_proj.weight"
LOG = [{"loss": 2.5, "step": 1, "regularizer/l2sp": 0.1}, {"loss": 1.5, "step": 2, "regularizer/l2sp": 0.2}]


def delta(seed, scale=0.3):
    drawn = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(32, 2, generator=drawn) * scale, torch.randn(2, 48, generator=drawn))
    return Delta({DOWN.format(seed % 4): Change(factors)})


def tuned(shop, task, seed, on="latest", count=4, **more):
    """A version with the notes of a tuning."""
    rows = (*task.test, *task.validation)[:count]
    notes = {
        "task": {
            "name": task.name,
            "digest": task.digest,
            "instruction": task.instruction,
            "train_rows": len(task.train),
            "test": [row.model_dump(mode="json") for row in rows],
        },
        "training": {"log": LOG, "averaging": {"form": "none"}, "seconds": 1.5, "rows": 8},
    }
    change = delta(seed)
    solved = Delta(change.changes, notes={**notes, **more})
    recipe = {"kind": "tuning", "restraint": "none", "restraint_config": {"kind": "none"}}
    return shop.archive.commit(shop.version(on), change, solved=solved, recipe=recipe, actor="kato")


@pytest.fixture
def asked(monkeypatch):
    """Which questions were asked of which weights."""
    calls = []

    def spy(model, tokenizer, examples, **more):
        calls.append((float(model.get_parameter(DOWN.format(1)).sum()), more["stage"], len(examples)))
        return answer_task(model, tokenizer, examples, **more)

    monkeypatch.setattr("perdure.measuring.task_answers.answer_task", spy)
    return calls


@pytest.fixture
def loads(tiny_shop, monkeypatch):
    """Which models were built."""
    built = []
    real = tiny_shop.archive.tensors

    def spy(version, names=None):
        if names is None:
            built.append(version.name)
        return real(version, names)

    monkeypatch.setattr(tiny_shop.archive, "tensors", spy)
    return built


def test_a_version_that_was_never_tuned_has_no_tasks_and_asks_none(tiny_shop, asked):
    step = delta(1)
    tiny_shop.archive.commit(
        tiny_shop.version("v0"), step, solved=step, recipe={"kind": "x", "restraint": "none"}, actor="kato"
    )
    assert tiny_shop.measure("v1").tasks is None
    assert asked == []


def test_every_task_of_the_lineage_is_asked_before_after_and_of_the_base(tiny_shop, asked, loads):
    tuned(tiny_shop, tuning_tasks.UPPER, 1)
    tuned(tiny_shop, tuning_tasks.FIRST, 2)
    found = tiny_shop.measure("v2").tasks
    assert [(task.name, task.version, task.exact.after.n) for task in found.tasks] == [
        ("upper", "v1", 4),
        ("first", "v2", 4),
    ]
    assert found.newest.name == "first"
    assert [task.name for task in found.earlier] == ["upper"]
    assert found.tasks[0].since == found.tasks[0].exact.difference  # learnt by the version before
    assert found.tasks[1].since is None
    assert all(task.exact.base is not None and task.rouge.base is not None for task in found.tasks)
    assert [(stage.version, len(stage.exact)) for stage in found.stages] == [("v0", 2), ("v1", 2), ("v2", 2)]
    assert found.exact.average.n == 8
    assert found.exact.forgetting.n == 4
    assert found.training.seconds == 1.5
    assert found.training.log[1]["regularizer/l2sp"] == 0.2
    assert loads == ["v1", "v2", "v0"]  # each once
    assert len(asked) == 6
    assert found.questions == len(found.cases) == 8
    assert found.cases[0].question == tuning_tasks.UPPER.test[0].messages[0].content


def test_what_was_asked_once_is_not_asked_again(tiny_shop, asked, loads):
    tuned(tiny_shop, tuning_tasks.UPPER, 1)
    first = tiny_shop.measure("v1")
    asked.clear()
    loads.clear()
    again = tiny_shop.measure("v1")
    assert again.tasks == first.tasks
    assert asked == loads == []


def test_cells_of_ancestors_come_from_their_reports(tiny_shop, asked):
    third = tuning_tasks.task("last", lambda word: word[-1])
    for seed, task in enumerate((tuning_tasks.UPPER, tuning_tasks.FIRST, third), 1):
        tuned(tiny_shop, task, seed)
    kept = tiny_shop.measure("v1").tasks.items[tuning_tasks.UPPER.digest]
    assert set(kept.exact) <= {0, 1} and len(kept.rouge) == 4
    tiny_shop.archive._database.connection().execute("DELETE FROM remembered WHERE kind = 'outcomes'")
    asked.clear()
    found = tiny_shop.measure("v3").tasks
    assert len(asked) == 9  # three tasks of v2, v3 and v0; v1's cell stood in its report
    row = found.stages[1]
    assert list(row.exact) == [tuning_tasks.UPPER.digest]
    assert row.rouge[tuning_tasks.UPPER.digest] == pytest.approx(sum(kept.rouge) / 4, abs=1e-4)


def test_cells_of_ancestors_that_were_never_measured_are_asked(tiny_shop, asked):
    third = tuning_tasks.task("last", lambda word: word[-1])
    for seed, task in enumerate((tuning_tasks.UPPER, tuning_tasks.FIRST, third), 1):
        tuned(tiny_shop, task, seed)
    found = tiny_shop.measure("v3").tasks
    assert len(asked) == 10
    assert [len(stage.exact) for stage in found.stages] == [3, 1, 3, 3]
    assert found.exact.forgetting.n == 8


def test_an_edit_on_top_is_a_row_that_learns_nothing(tiny_shop, asked):
    tuned(tiny_shop, tuning_tasks.UPPER, 1)
    step = delta(2, scale=1.0)
    tiny_shop.archive.commit(
        tiny_shop.version("v1"), step, solved=step,
        recipe={"kind": "edit", "editor": "memit", "restraint": "none"}, actor="kato",
    )  # fmt: skip
    found = tiny_shop.measure("v2").tasks
    assert (found.learnt, found.newest, found.training) == ("", None, None)
    assert [task.name for task in found.earlier] == ["upper"]
    assert [stage.learnt for stage in found.stages] == ["", tuning_tasks.UPPER.digest, ""]
    assert found.exact.forgetting is not None


def test_a_task_learnt_twice_is_one_task_and_one_without_questions_is_named(tiny_shop):
    tuned(tiny_shop, tuning_tasks.UPPER, 1)
    tuned(tiny_shop, tuning_tasks.UPPER, 2)
    tuned(tiny_shop, tuning_tasks.FIRST, 3, count=0)
    found = tiny_shop.measure("v3").tasks
    assert [(task.name, task.version) for task in found.tasks] == [("upper", "v1")]
    assert len(found.stages) == 4
    assert found.unasked == ("first",)
    assert found.newest is None
    assert Report.model_validate_json(tiny_shop.report("v3").model_dump_json()).tasks == found


def test_only_tasks_without_questions_leave_no_figures(tiny_shop):
    tuned(tiny_shop, tuning_tasks.UPPER, 1, count=0)
    found = tiny_shop.measure("v1").tasks
    assert (found.exact, found.tasks, found.unasked) == (None, (), ("upper",))
    assert found.drift is not None


def test_features_drift_from_the_base(tiny_shop):
    tuned(tiny_shop, tuning_tasks.UPPER, 1)
    found = tiny_shop.measure("v1").tasks.drift
    assert found.blocks == (0, 1, 2, 3)
    assert found.by_block[0] == 0  # the change is in block 1
    assert 0 < found.by_block[1] < 4
    assert found.mean.value == pytest.approx(sum(found.by_block) / 4)
    assert (found.mean.n, found.mean.low <= found.mean.value <= found.mean.high) == (2, True)


def test_drift_is_none_from_itself_two_from_unrelated_features_and_blind_to_scale(tiny, small_suite):
    features = read_features(*tiny, small_suite)
    assert len(features.passages) == 2
    assert features.passages[0].shape == (len(small_suite.passages[0].text.encode()) - 1, 4, 32)
    assert drift_of(features, features).mean.value == 0
    drawn = torch.Generator().manual_seed(0)
    first, second = (Features([0, 1], [torch.randn(500, 2, 64, generator=drawn) for _ in range(3)]) for _ in range(2))
    assert drift_of(first, second).mean.value == pytest.approx(2, abs=0.02)
    assert drift_of(first, Features([0, 1], [5 * part for part in first.passages])).mean.value < 1e-9
    with pytest.raises(ModelError, match="do not compare"):
        drift_of(features, first)


def replies(hits):
    return tuple(TaskReply(text="x", exact=bool(hit), rouge=float(hit)) for hit in hits)


def lineage(hits):
    """A task with so many questions, and its answers before and after."""
    count = len(hits[0])
    rows = tuple(tuning_tasks.example(f"question {n}", "yes") for n in range(count))
    task = LineageTask("d" * 64, "yes or no", "", 9, "v1", rows)
    before, after = (Outcomes(tasks={task.digest: replies(side)}) for side in hits)
    stages = [
        StageCells(name, learnt, {task.digest: cell_of(outcomes.tasks[task.digest])})
        for name, learnt, outcomes in (("v0", "", before), ("v1", task.digest, after))
    ]
    return [task], stages, Answered(before, after)


def test_lost_questions_are_shown_first_and_at_most_two_hundred():
    hits = [1] * 150 + [0] * 150, [1] * 140 + [0] * 10 + [1] * 40 + [0] * 110
    found = build_tasks(*lineage(hits), Beside())
    assert (len(found.cases), found.questions) == (CASE_LIMIT, 300)
    outcomes = [(case.before_ok, case.after_ok) for case in found.cases]
    assert (outcomes.count((True, False)), outcomes.count((False, True))) == (10, 40)


def test_general_tasks_are_the_parts_of_the_suite_with_and_without_examples():
    tasks, stages, answered = lineage(([0, 1], [1, 1]))

    def outcomes(given, oks):
        names = ("functions.a", "functions.b", "facts.prompt", "instructions")
        parts = {
            name: (Answer(item="i", expected="e", written="w", ok=ok),) for name, ok in zip(names, oks, strict=True)
        }
        return given.model_copy(update={"retention": parts})

    before, after = outcomes(answered.before, (1, 1, 1, 1)), outcomes(answered.after, (1, 0, 1, 1))
    found = build_tasks(tasks, stages, Answered(before, after), Beside())
    assert (found.in_context.before.hits, found.in_context.after.hits, found.in_context.after.n) == (2, 1, 2)
    assert (found.zero_shot.after.hits, found.zero_shot.after.n) == (2, 2)
    assert found.in_context.against_original.value == -0.5
    base = outcomes(answered.before, (1, 1, 0, 0))
    found = build_tasks(tasks, stages, Answered(before, after, base), Beside())
    assert found.zero_shot.against_original.value == 1


def test_notes_without_a_training_and_odd_entries_are_borne():
    assert training_of({}) is None
    found = training_of({"training": {"log": [{"loss": 1, "step": 2, "form": "x", "best": True, "none": None}]}})
    assert found.log == ({"loss": 1.0, "step": 2.0},)
