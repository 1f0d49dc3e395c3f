"""What an earlier task loses while the next one is learnt, held by K-FAC as strongly and as finely as asked for.

    python -m bench.curvature --data FOLDER
    python -m bench.curvature --data FOLDER --weights 0,0.05,0.5,1,5 --ranks 16 --rows 64

The first two tasks of a stream, by LoRA alone: no anchors, no averaging. Printed is the mean loss of unseen answers of
both (nats a token, teacher-forced), what the penalty foretold for the first, and CPU seconds. The first task is trained
once, and its information is taken once for each rank.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.machine import describe_machine
from bench.streams.tasks import ORDERS, stream
from perdure.deltas import Delta
from perdure.editing import applied
from perdure.models import load, resolve
from perdure.requests.tasks import Task
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import rows_of
from perdure.tuning.kronecker import as_state
from perdure.tuning.reading import evenly, row_losses
from perdure.tuning.regularizer import State, Surroundings
from perdure.tuning.regularizers.kfac import information
from perdure.tuning.run import attached, tune
from perdure.tuning.token_run import TokenRun

_TOKENS = 1024


def taken(model: Any, tokenizer: Any, task: Task, settings: Mapping[str, Any], rows: int, rank: int) -> State:
    """The task's information at the model as it is."""
    with attached(model, TuningConfig(**settings)) as (network, trained):
        learnt = rows_of(tokenizer, task.train, _TOKENS)
        run = TokenRun(network, tokenizer, learnt, [], trained, Surroundings())
        return as_state(information(run, evenly(run.learnt, rows), rank))


def losses(model: Any, tokenizer: Any, tasks: Sequence[Task]) -> list[float]:
    """The mean loss of unseen answers of each task."""
    found = [row_losses(model, rows_of(tokenizer, task.test, _TOKENS)) for task in tasks]
    return [round(sum(each) / len(each), 3) for each in found]


def second(
    model: Any, tokenizer: Any, tasks: Sequence[Task], settings: Mapping[str, Any], state: State, weight: float
) -> dict[str, Any]:
    """The second task learnt on the model as it is, held by the first one's information."""
    held = ({"kind": "kfac", "weight": weight},) if weight else ()
    started = time.process_time()
    tuned = tune(
        model, tokenizer, tasks[1], TuningConfig(**settings, regularizers=held), Surroundings(states={"kfac": state})
    )
    seconds = time.process_time() - started
    foretold = [entry.get("regularizer/kfac", 0.0) for entry in tuned.delta.notes["log"] if "loss" in entry][-1]
    with applied(model, tuned.delta):
        first, new = losses(model, tokenizer, tasks)
    return {"first": first, "second": new, "foretold": round(foretold, 4), "cpu_s": round(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks/ and text/")
    parser.add_argument("--order", default="B", choices=ORDERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--weights", default="0,0.5,1,5", help="λ, comma-separated")
    parser.add_argument("--ranks", default="16", help="directions kept of each factor, comma-separated")
    parser.add_argument("--rows", type=int, default=64, help="rows on which information is taken")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(describe_machine()), flush=True)
    model, tokenizer = load(resolve(given.model))
    tasks = stream(given.data, given.order, rows=64, asked=40, seed=given.seed)[:2]
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-4, "seed": given.seed}
    learnt: Delta = tune(model, tokenizer, tasks[0], TuningConfig(**settings)).delta
    with applied(model, learnt):
        print(json.dumps({"after": tasks[0].name, "losses": losses(model, tokenizer, tasks)}), flush=True)
        for rank in map(int, given.ranks.split(",")):
            state = taken(model, tokenizer, tasks[0], settings, given.rows, rank)
            for weight in map(float, given.weights.split(",")):
                found = second(model, tokenizer, tasks, settings, state, weight)
                print(json.dumps({"rank": rank, "weight": weight, **found}), flush=True)


if __name__ == "__main__":
    main()
