"""Causal tracing on known facts, and whether editing where it points is editing best.

    python -m bench.tracing trace --data FOLDER --facts 60
    python -m bench.tracing edit --data FOLDER --layers "4,5,6,7 2,3,4,5" --lines 201-220 --facts 12

The folder holds known_800.jsonl and smollm2_known.json (ids of the facts that SmolLM2-135M ranks first), and
counterfact_3000.jsonl. The edit is MEMIT with its own settings; windows of layers after the first are compared with
the first, fact by fact (Hase et al. 2023 found that tracing does not predict editing).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from perdure.editing import MemitConfig, applied, memit
from perdure.editing.corruption import TracedFact
from perdure.editing.tracing import TraceConfig, trace_facts
from perdure.measuring import Outcomes, build_edit_measures, measure_edits, references_from
from perdure.measuring.report import EditMeasures
from perdure.measuring.traced import TraceMeasures
from perdure.measuring.tracing import build_trace
from perdure.models import load
from perdure.requests import Fact, check_facts

SHOWN = ("generation_contains", "probability")


def known_facts(folder: Path, count: int) -> list[TracedFact]:
    """The first facts of known_800.jsonl that the model ranks first."""
    known = set(json.loads((folder / "smollm2_known.json").read_text()))
    rows = map(json.loads, (folder / "known_800.jsonl").read_text().splitlines())
    chosen = [row for row in rows if row["known_id"] in known][:count]
    return [TracedFact(row["subject"], row["prompt"], row["attribute"].strip()) for row in chosen]


def counterfacts(folder: Path, lines: str, count: int) -> list[Fact]:
    """The first good facts in these lines, numbered from 1, of counterfact_3000.jsonl."""
    first, _, last = lines.partition("-")
    rows = (folder / "counterfact_3000.jsonl").read_text().splitlines()[int(first) - 1 : int(last)]
    return list(check_facts([json.loads(row) for row in rows], skip_bad=True).facts[:count])


def compare(model: Any, tokenizer: Any, facts: list[Fact], windows: list[list[int]]) -> dict[str, Any]:
    """What each window of layers learns, and the paired difference to the first one."""
    before = measure_edits(model, tokenizer, facts)
    after = []
    for layers in windows:
        delta = memit(model, tokenizer, facts, MemitConfig(layers=tuple(layers)))
        with applied(model, delta):
            after.append(measure_edits(model, tokenizer, facts, references=references_from(before)))
    found = {
        "facts": len(facts),
        "before": _shares(build_edit_measures(Outcomes(edits=before), Outcomes(edits=before))),
    }
    for layers, answers in zip(windows, after, strict=True):
        against_first = build_edit_measures(Outcomes(edits=after[0]), Outcomes(edits=answers))
        found[",".join(map(str, layers))] = _shares(against_first)
    return found


def _shares(measures: EditMeasures | None) -> dict[str, Any]:
    return {
        given.name.removeprefix("edits."): {
            "share": given.after.model_dump(mode="json"),
            "against_the_first": given.difference.model_dump(mode="json"),
        }
        for given in (measures.comparisons if measures else ())
        if given.name.rpartition(".")[2] in SHOWN
    }


def trace(model: Any, tokenizer: Any, facts: list[TracedFact], config: TraceConfig) -> tuple[TraceMeasures, float]:
    """The trace and the CPU seconds that it took."""
    start = time.process_time()
    found = trace_facts(model, tokenizer, facts, config)
    seconds = time.process_time() - start
    return build_trace(found, "bench", config.model_dump(mode="json")), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("trace", "edit"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=60)
    parser.add_argument("--draws", type=int, default=TraceConfig().draws)
    parser.add_argument("--layers", default="4,5,6,7", help="windows of layers, separated by spaces")
    parser.add_argument("--lines", default="201-220", help="of counterfact_3000.jsonl")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    if given.what == "trace":
        facts = known_facts(given.data, given.facts)
        found, seconds = trace(model, tokenizer, facts, TraceConfig(draws=given.draws))
        print(json.dumps(found.model_dump(mode="json") | {"cpu_seconds": seconds}))
        return
    windows = [[int(layer) for layer in window.split(",")] for window in given.layers.split()]
    print(json.dumps(compare(model, tokenizer, counterfacts(given.data, given.lines, given.facts), windows), indent=2))


if __name__ == "__main__":
    main()
