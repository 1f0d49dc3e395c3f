"""Tasks one after another: what is learnt, what is forgotten, what it costs, for every method on the same data.

    python -m bench.continual --data FOLDER --work FOLDER
    python -m bench.continual --data FOLDER --work FOLDER --rows lora,usual --orders A --seeds 0
    python -m bench.continual --work FOLDER --table --picture docs/images/continual.png

FOLDER of data holds `tasks/` and `text/`. Every method has the same rows, the same number of steps and the same
adapters; the full fine-tuning has no adapters. Printed are Avg, New and Forgetting (exact answers, freely written), and
what the model could do before, asked again at the end: facts and instructions without examples, functions in context.
What is finished is kept in the work folder and not computed again.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.machine import describe_machine
from bench.streams.methods import ROWS, row_named
from bench.streams.sequence import Bench, general_hits, run_row
from bench.streams.tables import picture, table
from bench.streams.tasks import ORDERS, stream
from perdure.content import digest_json, write_atomic
from perdure.measuring.skill_comparison import Bench as SkillBench
from perdure.measuring.skill_comparison import Side, functions_named, traits_of
from perdure.measuring.suites import Suite
from perdure.models import load, resolve
from perdure.vectors import VectorConfig, universal_heads

_SKILLS = ("present_past", "singular_plural", "capitalize", "choose_first_of_3", "comparative", "verb_third_person")


def small_suite(pairs: int, items: int) -> Suite:
    """The built-in suite with so many pairs of each function and items of each other part, drawn with a fixed seed."""
    suite, drawn = Suite.built_in(), random.Random("suite of the streams")
    functions = {
        name: tuple(drawn.sample(given, min(pairs, len(given)))) for name, given in sorted(suite.functions.items())
    }
    parts = {
        name: tuple(drawn.sample(getattr(suite, name), min(items, len(getattr(suite, name)))))
        for name in ("facts", "instructions")
    }
    return replace(suite, id=digest_json([suite.id, pairs, items]), functions=functions, **parts)


def find_heads(source: str, work: Path) -> Sequence[tuple[int, int]]:
    """The heads of the base that carry skills; studied once."""
    bench, side = (
        SkillBench(VectorConfig(clean=40, shuffled=15, validation=8, asked=8), work),
        Side.of_checkpoint(source),
    )
    found = [traits_of(side, function, bench) for function in functions_named(list(_SKILLS))]
    return universal_heads([traits for traits in found if not traits.evidence.reason], 10)


def _bench(given: argparse.Namespace) -> Bench:
    model, tokenizer = load(resolve(given.model))
    heads: list[Sequence[tuple[int, int]]] = []

    def cached(_model: Any, _tokenizer: Any) -> Sequence[tuple[int, int]]:
        if not heads:
            heads.append(find_heads(given.model, given.work / "heads"))
        return heads[0]

    settings = {
        "epochs": given.epochs,
        "batch_size": given.batch_size,
        "learning_rate": given.learning_rate,
    }
    return Bench(
        model, tokenizer, settings, small_suite(given.pairs, given.items), cached, given.work, str(given.model)
    )


def _base(bench: Bench, work: Path) -> dict[str, Any]:
    """What the base answers to the suite, asked once."""
    file = work / f"base-{digest_json([bench.name, bench.suite.id])[:16]}.json"
    if not file.is_file():
        write_atomic(file, json.dumps(general_hits(bench)).encode())
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _results(work: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((work / "results").glob("*.json"))]
    order = [row.name for row in ROWS]
    return sorted(found, key=lambda result: (order.index(result["row"]), result["order"], result["seed"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tasks/ and text/")
    parser.add_argument("--work", type=Path, required=True, help="folder of finished and unfinished work")
    parser.add_argument("--rows", default=",".join(row.name for row in ROWS), help="methods, comma-separated")
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--train", type=int, default=64, help="rows of each task")
    parser.add_argument("--asked", type=int, default=40, help="test rows of each task")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of each in-context function")
    parser.add_argument("--items", type=int, default=60, help="facts and instructions, each")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--table", action="store_true", help="print the table of what is finished and end")
    parser.add_argument("--picture", type=Path, help="draw what is finished into this file and end")
    given = parser.parse_args()
    if given.table or given.picture:
        chosen = set(given.orders.split(",")), set(map(int, given.seeds.split(",")))
        results = [each for each in _results(given.work) if each["order"] in chosen[0] and each["seed"] in chosen[1]]
        if given.table:
            print(table(results))
        if given.picture:
            picture(results, given.picture)
        return
    if given.data is None:
        parser.error("--data is needed to run")
    torch.set_num_threads(1)
    print(json.dumps(describe_machine()), flush=True)
    bench = _bench(given)
    base = _base(bench, given.work)
    for seed in map(int, given.seeds.split(",")):
        for order in given.orders.split(","):
            tasks = stream(given.data, order, rows=given.train, asked=given.asked, seed=seed)
            bench.settings = {**bench.settings, "seed": seed}
            for name in given.rows.split(","):
                _run(bench, name, tasks, base, given.work, {"order": order, "seed": seed})


def _run(bench: Bench, name: str, tasks: Any, base: Any, work: Path, place: dict[str, Any]) -> None:
    started = time.monotonic()
    result = {**run_row(bench, row_named(name), tasks), "base": base, **place}
    file = work / "results" / f"{name}-{place['order']}-{place['seed']}-{result['key'][:12]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(result).encode())
    last = {task: sum(cell["exact"]) for task, cell in result["stages"][-1]["cells"].items()}
    new = {stage["task"]: sum(stage["cells"].get(stage["task"], {"exact": []})["exact"]) for stage in result["stages"]}
    print(f"{name} {place}: new {new}, at the end {last}, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
