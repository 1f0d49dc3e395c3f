"""One fact taken out of an edit, against the edit made from scratch without it, on the same facts in the same run.

    python -m bench.removing --editor memit
    python -m bench.removing --editor rome
    python -m bench.removing --editor memit --same-subject

The facts are taught in batches, so that a fact of the first one stands under all later solves. Rows:

    taught              all facts
    taken out           perdure: solved once more from the kept target values, without the fact
    columns dropped     the closed forms alone: the fact's columns left out of R and K as they were recorded
    from scratch        everything anew without the fact, batch by batch as they were
    from scratch, filled up  the same with full batches: how far two honest ways to teach the same facts differ

`away` is ‖ΔW − ΔW_scratch‖ / ‖ΔW_scratch‖ over all matrices, `cosine` that of the two. With --same-subject two later
facts are about the subject of the one that is taken out: what is known of them hangs on it.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import perdure
from bench.machine import describe_machine
from perdure.deltas import Delta
from perdure.editing import Moments, Surroundings, applied, edit_in_batches
from perdure.editing.matrices import matrix_delta
from perdure.editing.method import Progressed
from perdure.editing.solving import memit_update, protect
from perdure.measuring import EditAnswer, measure_edits, references_from
from perdure.measuring.removals import is_back, questions_about
from perdure.models import layout_of, load
from perdure.registry import editors
from perdure.requests import Fact, read_facts

DEMO_FACTS = Path(perdure.__file__).parent / "demo/facts.jsonl"


class Bench:
    """A model, an editor and facts, taught in several ways on the same moments."""

    def __init__(self, network: tuple[Any, Any], editor: str, batch: int, config: Mapping[str, Any]) -> None:
        self.model, self.tokenizer = network
        self.method = editors.get(editor)
        self.config, self.batch = self.method.config.model_validate(dict(config)), batch
        self.moments = Moments.of_model(self.model, self.tokenizer)
        self.batches: list[Delta] = []

    def teach(
        self, facts: Sequence[Fact], sizes: int | Sequence[int], values: Mapping[str, Any] | None = None
    ) -> tuple[Delta, float]:
        """What the editor solves, and the CPU seconds it takes."""
        self.batches = []

        def keep(now: Progressed) -> None:
            self.batches.append(now.batch)

        around = Surroundings(moments=self.moments, values=values or {})
        start = time.process_time()
        solved = edit_in_batches(
            self.model,
            self.tokenizer,
            facts,
            self.method,
            self.config,
            batch_size=sizes,
            around=around,
            on_batch=keep,
        )
        return solved, time.process_time() - start

    def ask(self, delta: Delta, facts: Sequence[Fact], first: Sequence[EditAnswer] | None) -> tuple[EditAnswer, ...]:
        """Answers to the facts as taught and in other words, with the delta on."""
        references = None if first is None else references_from(first)
        with applied(self.model, delta):
            return measure_edits(self.model, self.tokenizer, questions_about(facts), references=references)


def drop_columns(bench: Bench, batches: Sequence[Delta], gone: int) -> Delta:
    """MEMIT solved again without one fact of the first batch from the recorded R and K; no model is run."""
    layout, total = layout_of(bench.model), Delta()
    weight = batches[0].notes["moment_weight"]
    for number, batch in enumerate(batches):
        step = Delta()
        for layer in batch.notes["layers"]:
            matrix = layout.mlp_out[layer]
            low_rank = batch.changes[matrix.name].low_rank
            assert low_rank is not None
            kept = [at for at in range(low_rank.rank) if number or at != gone]
            residual_ON, key_IN = low_rank.left.double()[:, kept], batch.keys[matrix.name].double()[:, kept]
            solve = protect(bench.moments.of([layer])[layer], weight, total.keys.get(matrix.name))
            step = step + matrix_delta(matrix, memit_update(residual_ON, key_IN, solve), key_IN)
        total = total + step
    return Delta(total.changes, total.keys)


def distance(delta: Delta, scratch: Delta) -> dict[str, float]:
    """How far a delta is from another, over all matrices together."""
    pairs = [(delta.changes[name].value(), change.value()) for name, change in scratch.changes.items()]
    apart, one, two = (
        sum(float(part.norm() ** 2) for part in parts) ** 0.5
        for parts in ([a - b for a, b in pairs], [a for a, _ in pairs], [b for _, b in pairs])
    )
    inner = sum(float((a * b).sum()) for a, b in pairs)
    return {"away": round(apart / two, 4), "cosine": round(inner / (one * two), 4)}


def judged(answers: Sequence[EditAnswer], before: Sequence[EditAnswer]) -> dict[str, Any]:
    """Shares over the facts that stay, as taught and in other words."""
    found: dict[str, Any] = {}
    for kind in ("prompt", "paraphrase"):
        pairs = [(now, then) for now, then in zip(answers, before, strict=True) if now.kind == kind]
        weighed = [now for now, _ in pairs if now.log_prob_new is not None and now.log_prob_old is not None]
        found[kind] = {
            "n": len(pairs),
            "said": sum(now.contains for now, _ in pairs),
            "likelier": f"{sum(now.log_prob_new > now.log_prob_old for now in weighed)} of {len(weighed)}",  # type: ignore[operator]
            "same answer": sum(now.contains == then.contains for now, then in pairs),
            "word for word": sum(now.written == then.written for now, then in pairs),
        }
    return found


def rows(bench: Bench, facts: list[Fact], gone: int) -> list[dict[str, Any]]:
    """One row for each way; the last two are taught from scratch."""
    removed, left = facts[gone], [fact for fact in facts if fact is not facts[gone]]
    sizes = [
        sum(fact is not removed for fact in facts[at : at + bench.batch]) for at in range(0, len(facts), bench.batch)
    ]
    taught, seconds = bench.teach(facts, bench.batch)
    batches = bench.batches
    ways = {"taught": (taught, seconds), "taken out": bench.teach(left, sizes, taught.values)}
    again = sum(loss is not None for batch in bench.batches for loss in batch.notes.get("value_losses", ()))
    if bench.method.name == "memit":
        start = time.process_time()
        ways["columns dropped"] = drop_columns(bench, batches, gone), time.process_time() - start
    ways["from scratch"] = bench.teach(left, sizes)
    ways["from scratch, filled up"] = bench.teach(left, bench.batch)
    original = bench.ask(Delta(), facts, None)
    before = bench.ask(taught, left, original)
    found = []
    for name, (delta, taken) in ways.items():
        answers = bench.ask(delta, [removed], original)
        firsts = {answer.question: answer for answer in original}
        found.append(
            {
                "row": name,
                "cpu seconds": round(taken, 1),
                **({"searched again": again} if name == "taken out" else {}),
                **distance(delta, ways["from scratch"][0]),
                **judged(bench.ask(delta, left, original), before),
                "taken out": [answer.written for answer in answers],
                "still said": sum(answer.contains for answer in answers),
                "original answer back": sum(is_back(firsts[answer.question], answer) for answer in answers),
            }
        )
    return found


def about_the_same(subject: str) -> list[Fact]:
    """Two more facts about a subject."""
    return [
        Fact(subject=subject, prompt=f"The {subject} was first sold in the country of", target_new="Brazil"),
        Fact(subject=subject, prompt=f"The colour of the {subject} is", target_new="green"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--editor", default="memit")
    parser.add_argument("--facts", type=Path, default=DEMO_FACTS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--remove", type=int, default=0, help="The place of the fact, in the first batch.")
    parser.add_argument("--same-subject", action="store_true")
    given = parser.parse_args()
    facts = list(read_facts(given.facts).facts)[: given.count]
    if given.same_subject:
        facts[given.batch], facts[-3] = about_the_same(facts[given.remove].subject)
    bench = Bench(load(given.model), given.editor, given.batch, {})
    print(json.dumps({**describe_machine(), "editor": given.editor, "facts": len(facts), "batch": given.batch}))
    for row in rows(bench, facts, given.remove):
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
