"""What holding a model costs: the time of a training step and the memory, against plain LoRA in the same run.

    python -m bench.steps --data FOLDER
    python -m bench.steps --data FOLDER --steps 8 --rounds 3 --model stories15m

Every method trains the same rows for the same steps, the methods taking turns round after round; the CPU time of each
part (before the first step, the steps, after the last) is the median over rounds. Memory is the peak of a process of
its own for each method. A goal is 1.15 times the step of plain LoRA with cached targets, 1.1 with averaging, and a
tenth more memory.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.machine import describe_machine
from bench.streams.tasks import stream
from perdure.models import load, resolve
from perdure.tuning.config import TuningConfig
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.run import tune

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "function_vector": {"regularizers": [{"kind": "function_vector"}]},
    "feature_distance": {"regularizers": [{"kind": "feature_distance"}]},
    "feature_distance, live": {"regularizers": [{"kind": "feature_distance", "cached": False}]},
    "distillation": {"regularizers": [{"kind": "distillation"}]},
    "averaging, fixed": {"averaging": {"form": "fixed"}},
    "averaging, sound": {"averaging": {"form": "sound"}},
}


def parts(name: str, model: Any, tokenizer: Any, task: Any, given: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of each part of a training."""
    layers = model.config.num_hidden_layers
    heads = [(layer, 0) for layer in range(layers // 3, layers)][:10]
    around = Surroundings(find_heads=lambda _model, _tokenizer: heads)
    config = TuningConfig(epochs=1000, max_steps=given.steps, batch_size=8, learning_rate=1e-4, **METHODS[name])
    found: dict[str, float] = tune(model, tokenizer, task, config, around).delta.notes["cpu_seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks/ and text/")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(resolve(given.model))
    task = stream(given.data, "A", rows=given.rows, asked=1, seed=0)[0]
    if given.peak_of:
        parts(given.peak_of, model, tokenizer, task, given)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
        return
    print(json.dumps(describe_machine()), flush=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for _ in range(given.rounds):
        for name in METHODS:
            found[name].append(parts(name, model, tokenizer, task, given))
    tell({name: _medians(runs) for name, runs in found.items()}, given)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {part: median(run[part] for run in runs) for part in runs[0]}


def tell(found: dict[str, dict[str, float]], given: argparse.Namespace) -> None:
    """The table."""
    print(f"{given.steps} steps of 8 rows, median of {given.rounds} rounds; {given.rows} rows are read before them\n")
    print("| method | step, CPU-s | against plain | before the steps, CPU-s | after them | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    plain = found["lora"]["training"]
    for name, run in found.items():
        step, ratio = run["training"] / given.steps, run["training"] / plain
        before, after = run["preparing"], run["averaging"]
        print(f"| {name} | {step:.2f} | {ratio:.2f} | {before:.1f} | {after:.1f} | {_peak(name, given)} |", flush=True)


def _peak(name: str, given: argparse.Namespace) -> int:
    words = ["--data", str(given.data), "--model", given.model, "--steps", "2", "--rows", str(given.rows)]
    run = [sys.executable, "-W", "ignore", "-m", "bench.steps", *words, "--peak-of", name]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
