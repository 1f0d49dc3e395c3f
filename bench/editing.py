"""The comparison of editors: same facts, same machine, one table; sequential edits with checkpoints.

    python -m bench.editing --data FOLDER --rows memit_keys --datasets counterfact --seeds 0 --checkpoints 1,10,100
    python -m bench.editing --table
    python -m bench.editing --curves docs/images
    python -m bench.editing --data FOLDER --seeds 1 --checkpoints 500 --draw facts.jsonl

What is finished is never computed again: a killed run goes on when it is started again, a longer run goes on
where a shorter one ended, and `--table` and `--curves` only read the file of results. `--draw` writes the facts of a
sequence for `perdure edit`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.edits.comparison import Comparison

OUT = Path(__file__).parent / "out" / "editing"


def main(arguments: Sequence[str] | None = None) -> None:
    given = _read(arguments)
    results_file = given.results or given.work / "results.jsonl"
    if given.list:
        _list()
    elif given.table:
        _print_table(results_file)
    elif given.curves:
        _draw(results_file, given.curves)
    elif given.draw:
        _write_facts(given)
    else:
        _run(given, results_file)


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with counterfact_3000.jsonl and zsre_600.jsonl")
    parser.add_argument("--rows", default="", help="names of rows, comma-separated; all when not given (see --list)")
    parser.add_argument("--datasets", default="counterfact", help="counterfact, zsre, or both, comma-separated")
    parser.add_argument("--seeds", default="0,1,2", help="each seed draws and orders the facts anew")
    parser.add_argument("--checkpoints", default="1,10,100", help="numbers of edits at which is measured")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=100, help="facts solved together, after 1 and 10")
    parser.add_argument("--sample", type=int, default=100, help="facts asked freely, in other words and nearby")
    parser.add_argument("--suite-items", type=int, default=150, help="pairs of in-context functions that are asked")
    parser.add_argument("--passages", type=int, default=24, help="held-out passages")
    parser.add_argument("--full-suite-from", type=int, help="from this many edits on, everything in the suite is asked")
    parser.add_argument("--work", type=Path, default=OUT, help="folder of intermediate work")
    parser.add_argument("--results", type=Path, help="file of finished cells; results.jsonl in the work folder")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--table", action="store_true", help="print the tables of the results so far and end")
    parser.add_argument("--draw", type=Path, help="write the facts of the sequence into this file and end")
    parser.add_argument("--curves", type=Path, help="draw the results so far into this folder and end")
    return parser.parse_args(arguments)


def _run(given: argparse.Namespace, results_file: Path) -> None:
    from bench.edits.rows import ROWS, row_named
    from bench.edits.samples import dataset_named
    from perdure.errors import SettingError

    if given.data is None:
        raise SettingError("name the folder of the datasets with --data")
    rows = [row_named(name) for name in _words(given.rows)] or list(ROWS)
    datasets = [dataset_named(name) for name in _words(given.datasets)]
    seeds, checkpoints = ([int(word) for word in _words(words)] for words in (given.seeds, given.checkpoints))
    comparison = _comparison(given, results_file)
    for dataset in datasets:
        pool = dataset.facts(given.data)
        for seed in seeds:
            for row in rows:
                comparison.run(row, dataset.name, pool, seed, checkpoints)


def _comparison(given: argparse.Namespace, results_file: Path) -> "Comparison":
    """The table to be filled, on the model given."""
    import torch

    from bench.edits.cells import Results
    from bench.edits.comparison import Comparison, Sizes
    from bench.edits.outcomes import full_exam, short_exam
    from bench.machine import describe_machine
    from perdure.editing import Moments
    from perdure.editing.statistics import digest_model
    from perdure.measuring import Suite
    from perdure.models import load

    torch.set_num_threads(given.threads)
    model, tokenizer = load(given.model)
    model_id, suite, results = digest_model(model), Suite.built_in(), Results(results_file)
    results.add_machine(describe_machine())
    exam = short_exam(suite, pairs=given.suite_items, passages=given.passages)
    return Comparison(
        model,
        tokenizer,
        model_id,
        Sizes(given.batch_size, given.sample, exam, full_exam(suite), given.full_suite_from),
        given.work,
        results,
        Moments(lambda: (model, tokenizer), model_id=model_id),
        tell=lambda words: print(words, file=sys.stderr, flush=True),
    )


def _print_table(results_file: Path) -> None:
    from bench.edits.cells import Results
    from bench.edits.tables import print_tables

    results = Results(results_file)
    for machine in results.machines:
        print(", ".join(f"{name} {value}" for name, value in machine.items() if name != "kind"))
    print("\n" + print_tables(results.cells))


def _draw(results_file: Path, folder: Path) -> None:
    from bench.edits.cells import Results
    from bench.edits.curves import draw_curves

    for path in draw_curves(Results(results_file).cells, folder):
        print(path)


def _write_facts(given: argparse.Namespace) -> None:
    """The lines of the data set that a sequence teaches, in its order, as they are."""
    from bench.edits.samples import dataset_named, draw_facts

    dataset = dataset_named(given.datasets)
    lines = (given.data / dataset.file).read_text(encoding="utf-8").splitlines()
    facts = draw_facts(dataset.facts(given.data), int(given.seeds), int(given.checkpoints))
    numbers = [int((fact.source or "").rpartition(":")[2]) for fact in facts]
    given.draw.write_text("".join(f"{lines[number - 1]}\n" for number in numbers), encoding="utf-8")


def _list() -> None:
    from bench.edits.rows import ROWS

    for row in ROWS:
        print(f"{row.name:26} {row.label}")


def _words(given: str) -> list[str]:
    return [word.strip() for word in given.split(",") if word.strip()]


if __name__ == "__main__":
    main()
