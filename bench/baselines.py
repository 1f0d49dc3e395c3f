"""Editors on a handful of facts, side by side: what is learnt, what is kept, and how long it takes.

    python -m bench.baselines --file counterfact_3000.jsonl --lines 201-220 --facts 12 \\
        --run "fine_tuning" --run "lora rank=4 learning_rate=0.003"

One JSON object a line: the base first, then each run. Shares are of the facts, their paraphrases and their
neighbours: `probability`, the right answer is more probable per token than its rival; `says`, it stands in the
first sentence of what the model writes freely.
"""

import argparse
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from perdure.editing import Surroundings, applied
from perdure.measuring.edits import measure_edits, references_from
from perdure.measuring.language import measure_language
from perdure.measuring.outcomes import EditAnswer, Passage
from perdure.measuring.suites import Suite
from perdure.models import load
from perdure.registry import Method, editors
from perdure.requests import Fact, read_facts

KINDS = ("prompt", "paraphrase", "neighbour")


@dataclass(frozen=True)
class Bench:
    """A model, the facts to teach it, and text that it should go on predicting."""

    model: Any
    tokenizer: Any
    facts: Sequence[Fact]
    suite: Suite

    def measure(self, references: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
        """The figures of the model as it is now, and what it wrote."""
        answers = measure_edits(self.model, self.tokenizer, self.facts, references=references)
        passages = measure_language(self.model, self.tokenizer, self.suite)
        figures = {"n": {kind: sum(answer.kind == kind for answer in answers) for kind in KINDS}}
        figures["probability"] = _shares(answers, is_preferred)
        figures["says"] = _shares(answers, lambda answer: answer.contains)
        return {**figures, "perplexity": round(perplexity(passages), 2)}, references_from(answers)

    def edit(self, method: Method, config: Any, references: dict[str, str]) -> dict[str, Any]:
        """The figures after one batch of all facts, on the model that comes back as it was."""
        start = time.process_time()
        delta = method.call(self.model, self.tokenizer, self.facts, config, Surroundings())
        seconds = time.process_time() - start
        with applied(self.model, delta):
            figures, _ = self.measure(references)
        losses = delta.notes.get("losses", ())
        return {**figures, "passes": len(losses), "loss": losses[-1] if losses else None, "cpu_seconds": round(seconds)}


def is_preferred(answer: EditAnswer) -> bool:
    """Whether the right answer is more probable per token than the other one."""
    if answer.log_prob_new is None or answer.log_prob_old is None:
        return False
    if answer.kind == "neighbour":
        return answer.log_prob_old > answer.log_prob_new
    return answer.log_prob_new > answer.log_prob_old


def perplexity(passages: Sequence[Passage]) -> float:
    """Over all tokens of all passages."""
    return math.exp(sum(passage.nll for passage in passages) / sum(passage.tokens for passage in passages))


def _shares(answers: Sequence[EditAnswer], judge: Callable[[EditAnswer], bool]) -> dict[str, float]:
    judged = {kind: [judge(answer) for answer in answers if answer.kind == kind] for kind in KINDS}
    return {kind: round(sum(found) / len(found), 2) for kind, found in judged.items() if found}


def _parse(words: str) -> tuple[Method, Any]:
    """An editor and its settings from `name key=value ...`; values are JSON."""
    name, *rest = shlex.split(words)
    method = editors.get(name)
    settings = {key: json.loads(value) for key, _, value in (word.partition("=") for word in rest)}
    return method, method.config.model_validate(settings)


def _facts(file: Path, lines: str, count: int) -> list[Fact]:
    first, _, last = lines.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    facts = read_facts(file, skip_bad=True).facts
    return [fact for fact in facts if int((fact.source or ":0").rpartition(":")[2]) in wanted][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--file", type=Path, required=True, help="a file of facts")
    parser.add_argument("--lines", required=True, help="lines of the file to draw from, such as 201-220")
    parser.add_argument("--facts", type=int, default=12, help="how many of them")
    parser.add_argument("--passages", type=int, help="held-out passages; all when not given")
    parser.add_argument("--run", action="append", required=True, help='an editor and its settings: "lora rank=4"')
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = [(words, *_parse(words)) for words in given.run]
    suite = Suite.built_in()
    suite = replace(suite, passages=suite.passages[: given.passages])
    bench = Bench(*load(given.model), _facts(given.file, given.lines, given.facts), suite)
    base, references = bench.measure()
    print(json.dumps({"run": "base", **base}), flush=True)
    for words, method, config in runs:
        print(json.dumps({"run": words, **bench.edit(method, config, references)}), flush=True)


if __name__ == "__main__":
    main()
