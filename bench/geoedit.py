"""GeoEdit, F-Learning and plain fine-tuning at equal success: what is left of the neighbours.

    python -m bench.geoedit --data FOLDER --dataset counterfact --lines 1001-1060 --work FILE
    python -m bench.geoedit --data FOLDER --dataset zsre --lines 1-60 --work FILE
    python -m bench.geoedit --work FILE --table

Facts are taught in batches of `--batch`, each to the original model. Every editor is measured before and after each
pass of its last training, so one run gives its whole course from "not learnt" to "overdone", and editors are compared
where they have learnt as much: for each point of F-Learning, the point of GeoEdit with at least its reliability and
generality, on the same facts. All rates, batches and layers are the same.

    reliability  greedy generation writes the new answer, word for word
    generality   the same after the first paraphrase; `likelier` is by probability per token against the old answer
    locality     the next token after the first neighbour is what it was in the original

A finished (batch, editor) is a line of FILE and is not computed again.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.machine import describe_machine
from perdure.editing import Surroundings
from perdure.measuring.statistics import paired_difference, share_of
from perdure.models import load, score_targets
from perdure.models.head import logits_at
from perdure.models.tokens import encode, pad
from perdure.registry import editors
from perdure.requests import Fact, read_facts

FILES = {"counterfact": "counterfact_3000.jsonl", "zsre": "zsre_600.jsonl"}
PASSES = 8
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fine-tuning": ("fine_tuning", "fine-tuning", {"steps": PASSES, "stop_loss": 0}),
    "F-Learning": ("f_learning", "learning", {"steps": PASSES, "stop_loss": 0}),
    "GeoEdit": (
        "geoedit",
        "learning once the old is forgotten",
        {"learning_steps": PASSES, "learnt_loss": 0},
    ),
    "GeoEdit, published rules": (
        "geoedit",
        "learning once the old is forgotten",
        {
            "learning_steps": PASSES,
            "learnt_loss": 0,
            "forgetting": 0.3,
            "acute": "merge",
            "width": 2.5,
            "rescaled": False,
        },
    ),
}
"""From a row to its editor, the stage that is measured after each pass, and its settings."""
MEASURES = ("reliability", "generality", "likelier", "generality_likelier", "locality")


class Judge:
    """What the model answers to a batch of facts, as lists of hits."""

    def __init__(self, model: Any, tokenizer: Any, facts: Sequence[Fact]) -> None:
        self._model, self._tokenizer, self._facts = model, tokenizer, facts
        self._before = self._next_words()

    @torch.no_grad()
    def _next_words(self) -> list[int]:
        rows = [encode(self._tokenizer, fact.neighbours[0].prompt) for fact in self._facts]
        last = torch.tensor([len(row) - 1 for row in rows])
        chosen: list[int] = (
            logits_at(self._model, torch.arange(len(rows)), last, **pad(rows).inputs()).argmax(1).tolist()
        )
        return chosen

    def __call__(self) -> dict[str, list[bool]]:
        """Whether each fact is hit, by measure."""
        asked = {"": [fact.prompt for fact in self._facts], "generality": [fact.paraphrases[0] for fact in self._facts]}
        found: dict[str, list[bool]] = {}
        for kind, prompts in asked.items():
            pairs = [(text, fact.target_new) for text, fact in zip(prompts, self._facts, strict=True)]
            pairs += [(text, fact.target_true or "") for text, fact in zip(prompts, self._facts, strict=True)]
            scores = score_targets(self._model, self._tokenizer, pairs)
            new, old = scores[: len(prompts)], scores[len(prompts) :]
            found[kind or "reliability"] = [all(score.hits) for score in new]
            likelier = [a.mean_log_prob > b.mean_log_prob for a, b in zip(new, old, strict=True)]
            found[f"{kind}_likelier" if kind else "likelier"] = likelier
        found["locality"] = [now == then for now, then in zip(self._next_words(), self._before, strict=True)]
        return found


def course(model: Any, tokenizer: Any, facts: Sequence[Fact], name: str) -> list[dict[str, Any]]:
    """The hits after each pass of an editor's last training, with the CPU seconds of the editor up to there."""
    editor, stage, settings = RUNS[name]
    judge, points = Judge(model, tokenizer, facts), []
    clock = time.process_time()

    def look(at: str, done: int, _total: int) -> None:
        nonlocal clock
        if at == stage and (not points or points[-1]["pass"] < done):
            spent = time.process_time() - clock
            points.append({"pass": done, "cpu": spent, **judge()})  # training shows the model its weights so far
            clock = time.process_time() - spent

    method = editors.get(editor)
    method.call(model, tokenizer, facts, method.config.model_validate(settings), Surroundings(progress=look))
    return points


def usable(path: Path, first: int, last: int) -> list[Fact]:
    """The facts of these lines that have an old answer, a paraphrase and a neighbour."""
    found = read_facts(path, skip_bad=True).facts
    chosen = [fact for fact in found if first <= int(str(fact.source).rpartition(":")[2]) <= last]
    return [fact for fact in chosen if fact.target_true and fact.paraphrases and fact.neighbours]


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The courses, and the comparison at equal success."""
    for dataset in sorted({row["dataset"] for row in results}):
        rows = [row for row in results if row["dataset"] == dataset]
        joined = {name: joined_course(rows, name) for name in RUNS}
        yield f"\n{dataset}\n\n| | pass | n | {' | '.join(MEASURES)} | CPU s per edit |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for name, points in joined.items():
            for point in points:
                cells = " | ".join(_percent(point[measure]) for measure in MEASURES)
                n = len(point["locality"])
                yield f"| {name} | {point['pass']} | {n} | {cells} | {point['cpu'] / n:.1f} |"
        yield "\nLocality at equal reliability and generality (points, paired, 95%):"
        for rival in ("F-Learning", "fine-tuning"):
            yield from compared(joined["GeoEdit"], joined[rival], rival)


def _percent(hits: Sequence[bool]) -> str:
    found = share_of(hits)
    return f"{100 * found.value:.0f}% ({100 * found.low:.0f}–{100 * found.high:.0f})"


def joined_course(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The points of one editor over all batches together, pass by pass."""
    courses = [row["points"] for row in rows if row["name"] == name]
    points = []
    for parts in zip(*courses, strict=False):
        point: dict[str, Any] = {measure: [hit for part in parts for hit in part[measure]] for measure in MEASURES}
        points.append({"pass": parts[0]["pass"], "cpu": sum(part["cpu"] for part in parts), **point})
    return points


def compared(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], rival: str) -> Iterator[str]:
    for point in theirs:
        goal = {kind: sum(point[kind]) for kind in ("reliability", "generality_likelier")}
        equal = [mine for mine in ours if all(sum(mine[kind]) >= least for kind, least in goal.items())]
        if equal and sum(point["reliability"]) >= len(point["reliability"]) / 2:
            gain = paired_difference(point["locality"], equal[0]["locality"])
            yield (
                f"  {rival} pass {point['pass']} / GeoEdit pass {equal[0]['pass']}: {100 * gain.value:+.1f} "
                f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), n {len(point['locality'])}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with counterfact_3000.jsonl and zsre_600.jsonl")
    parser.add_argument("--dataset", choices=FILES, default="counterfact")
    parser.add_argument("--lines", default="1001-1060")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        run(given)
    print("\n".join(tables(read_results(given.work))))


def run(given: argparse.Namespace) -> None:
    """Teach every batch with every editor, what is not done yet."""
    torch.set_num_threads(1)
    print(json.dumps(describe_machine()), flush=True)
    first, _, last = given.lines.partition("-")
    facts = usable(given.data / FILES[given.dataset], int(first), int(last))
    done = {(row["dataset"], row["lines"], row["start"], row["name"]) for row in read_results(given.work)}
    model, tokenizer = load(given.model)
    for start in range(0, len(facts), given.batch):
        for name in RUNS:
            key = {"dataset": given.dataset, "lines": given.lines, "start": start, "name": name}
            if tuple(key.values()) not in done:
                points = course(model, tokenizer, facts[start : start + given.batch], name)
                with given.work.open("a") as file:
                    file.write(json.dumps({**key, "points": points}) + "\n")
                print(f"{name}, facts {start + 1}-{min(start + given.batch, len(facts))}: measured", flush=True)


if __name__ == "__main__":
    main()
