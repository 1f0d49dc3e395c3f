"""Encoders learn one set and are probed on the others: what each method learns, and what it forgets.

    python -m bench.concepts --data FOLDER --work FOLDER
    python -m bench.concepts --data FOLDER --work FOLDER --encoders minilm --rows naive,lp_ft,ldifs:3 --seeds 0
    python -m bench.concepts --data FOLDER --work FOLDER --encoders resnet-50=FOLDER --size 128
    python -m bench.concepts --data FOLDER --work FOLDER --encoders two-towers=RESNET-FOLDER --rows naive,ldifs:3
    python -m bench.concepts --work FOLDER --table --picture docs/images/concepts.png

FOLDER of data holds `images/` and `text/`. Every method has the same items, steps and learning rates, and starts from
the same encoder; all but the naive one start from the same linear probe. Printed are the accuracy on the set that was
learnt, by the encoder and its head, and the mean change of linear probes on the others (Δ_LP). A row that is finished
is kept in the work folder by the content of all that it depends on, and not run again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from bench.encoders.methods import METHODS, rows_named
from bench.encoders.running import Bench, run_row
from bench.encoders.sets import drawn, open_encoder, open_two_towers, read_sets, validated
from bench.encoders.tables import accuracy_of, delta_of, picture, table
from bench.machine import describe_machine
from perdure.measuring.concept_answers import ConceptSettings


def _results(work: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((work / "results").glob("*.json"))]


def _bench(given: argparse.Namespace, named: str) -> Bench:
    name, _, source = named.partition("=")
    if name == "two-towers":
        encoder = open_two_towers(Path(source), read_sets(given.data, "image")[0], given.size)
    else:
        encoder = open_encoder(source or name, given.size)
    side = "image" if "image" in encoder.sides else "text"
    probes = [drawn(probe, given.probe_train, given.test, 0) for probe in read_sets(given.data, side)]
    chosen = {name: getattr(given, name) for name in ("epochs", "batch_size", "learning_rate", "warmup")}
    settings = {name: value for name, value in chosen.items() if value is not None}
    probing = ConceptSettings(drift_items=0)
    return Bench(encoder, name, probes, settings, given.train, given.work, probing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with images/ and text/")
    parser.add_argument("--work", type=Path, required=True, help="folder of finished and unfinished work")
    parser.add_argument("--encoders", default="mobilenet-v2,minilm", help="names, or name=folder, comma-separated")
    parser.add_argument("--targets", help="sets that are learnt, comma-separated; all when not given")
    parser.add_argument("--rows", default=",".join(METHODS), help="methods, each at all its strengths, or as ldifs:3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--train", type=int, default=800, help="items that are learnt from")
    parser.add_argument("--probe-train", type=int, default=1000, help="items that a probe of a set learns from")
    parser.add_argument("--test", type=int, default=400, help="test items of each set")
    parser.add_argument("--size", type=int, default=96, help="pixels of an image's side")
    parser.add_argument("--epochs", type=float, help="like the next three, that of perdure tune when not given")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float, help="of the encoder")
    parser.add_argument("--warmup", type=float, help="steps until it is reached; below 1 the share of all steps")
    parser.add_argument("--validate", action="store_true", help="ask a fifth of the training items, not the test's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of what is finished and end")
    parser.add_argument("--picture", type=Path, help="draw what is finished into this file and end")
    given = parser.parse_args()
    if given.table or given.picture:
        results = _results(given.work)
        if given.table:
            print(table(results))
        if given.picture:
            picture(results, given.picture)
        return
    if given.data is None:
        parser.error("--data is needed to run")
    torch.set_num_threads(given.threads)
    print(json.dumps(describe_machine()), flush=True)
    for named in given.encoders.split(","):
        _run(_bench(given, named), given)


def _run(bench: Bench, given: argparse.Namespace) -> None:
    wanted = given.targets.split(",") if given.targets else [probe.name for probe in bench.probes]
    targets = [probe for probe in read_sets(given.data, bench.probes[0].side) if probe.name in wanted]
    targets = [validated(probe) for probe in targets] if given.validate else targets
    tested = [drawn(probe, len(probe.train), given.test, 0) for probe in targets]
    for seed in map(int, given.seeds.split(",")):
        for target in tested:
            for row in rows_named(given.rows):
                started = time.monotonic()
                result = run_row(bench, row, target, seed)
                accuracy, delta = accuracy_of([result])[0], delta_of([result])[0]
                said = f"accuracy {accuracy:.1%}, Δ_LP {100 * delta:+.1f}, {time.monotonic() - started:.0f} s"
                print(f"{bench.name} {target.name} {row.name} seed {seed}: {said}", flush=True)


if __name__ == "__main__":
    main()
