"""The benchmark of streams on tiny models: each way of adding changes up, resuming, and the figures of the table."""

import json
from dataclasses import replace

import pytest
import torch
from bench.streams.methods import ROWS, row_named
from bench.streams.sequence import Bench, run_row
from bench.streams.tables import average, forgetting, interval, new, table

import tiny
from perdure.tuning.config import TuningConfig
from shops import write_suite
from tuning_tasks import task

UPPER = replace(task(), instruction="Write the word in capital letters.")
FIRST = replace(task("first", lambda word: word[0]), instruction="Which letter does it begin with?")
QUICK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2}
R = [[0.8], [0.7, 0.9], [0.6, 0.85, 0.75]]


@pytest.fixture
def bench(tmp_path):
    suite = write_suite(tmp_path / "suite")
    heads = [(0, 1), (2, 0)]
    return Bench(
        tiny.llama(), tiny.tokenizer(), QUICK, suite, lambda _model, _tokenizer: heads, tmp_path / "work", "tiny"
    )


def test_figures_of_the_known_example():
    assert average(R) == pytest.approx(0.7333, abs=1e-4)
    assert new(R) == pytest.approx(0.8167, abs=1e-4)
    assert forgetting(R) == pytest.approx(0.125)
    assert forgetting([[0.5, 0.6]]) == 0


def test_settings_of_every_row_are_known():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        TuningConfig.model_validate({**QUICK, **row.settings})
    with pytest.raises(SystemExit, match="joint"):
        row_named("nothing")


@pytest.mark.parametrize("name", ["lora", "inclora", "ewc", "pool", "replay", "joint"])
def test_a_row_asks_everything_learnt_so_far_and_leaves_the_base(bench, name):
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    found = run_row(bench, row_named(name), [UPPER, FIRST])
    stages = [["upper", "first"]] if name == "joint" else [["upper"], ["upper", "first"]]
    assert [list(stage["cells"]) for stage in found["stages"]] == stages
    assert len(found["stages"][-1]["general"]["in context"]) == 24
    assert all(torch.equal(value, before[key]) for key, value in bench.model.state_dict().items())


def test_a_row_is_taken_up_where_it_stopped(bench, monkeypatch):
    whole = run_row(bench, row_named("ewc"), [UPPER, FIRST])
    [folder] = [path for path in bench.work.iterdir() if path.name.startswith("ewc-")]
    (folder / "1.json").unlink()
    learnt = []

    def once(*given, **more):
        learnt.append(given[2].name)
        return tune(*given, **more)

    from bench.streams import sequence

    tune = sequence.tune
    monkeypatch.setattr(sequence, "tune", once)
    again = run_row(bench, row_named("ewc"), [UPPER, FIRST])
    assert learnt == ["first"]
    figures = [[stage["cells"], stage["general"], stage["notes"]["log"]] for stage in whole["stages"]]
    assert [[stage["cells"], stage["general"], stage["notes"]["log"]] for stage in again["stages"]] == figures


def test_the_table_has_a_line_for_each_method(bench):
    results = [
        {**run_row(bench, row_named(name), [UPPER, FIRST]), "order": "A", "seed": 0} for name in ("inclora", "joint")
    ]
    base = results[0]["stages"][-1]["general"]
    shown = table([json.loads(json.dumps({**result, "base": base})) for result in results]).splitlines()
    assert len(shown) == 4
    assert shown[2].startswith("| inclora | 1 |")


def test_intervals_hold_the_figure_and_are_the_same_each_time():
    run = {"row": "x", "stages": [{"cells": {"a": {"exact": [1, 0, 1, 1]}}}]}
    figure = lambda found, drawn: drawn(found["stages"][0]["cells"]["a"]["exact"], "a")  # noqa: E731
    value, low, high = interval([run], figure)
    assert (value, low, high) == interval([run], figure)
    assert low < value == 0.75 < high
