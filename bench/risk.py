"""Does the likeness of function vectors before tuning say which skill is forgotten? Measured over pairs of tasks.

    python -m bench.risk --work FOLDER
    python -m bench.risk --work FOLDER --tasks country_language,choose_last_of_3 --passes 3

Each task is tuned in, plainly and without examples, on half of its pairs, from the same original model; then every
other skill is asked with examples, on the same held-out questions before and after. The likeness is ranked by
`perdure vectors risk`, before anything is tuned. Printed are all pairs, and Spearman's rank correlation of likeness
and what is left, over all pairs and within each task, where a chance of it is judged by permuting. What is finished is
kept in FOLDER and not computed again.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.machine import describe_machine
from perdure.deltas import Change, Delta
from perdure.editing import applied
from perdure.editing.training import TrainingConfig, train
from perdure.measuring.skill_comparison import Bench, Side, functions_named
from perdure.measuring.skill_risk import rank_risk
from perdure.measuring.statistics import paired_difference
from perdure.models import layout_of, load, resolve
from perdure.requests.functions import Function
from perdure.vectors import VectorConfig, few_shot_prompts, rank_correlation
from perdure.vectors.injection import answered
from perdure.vectors.studies import parts_of

TASKS = "country_language,lowercase,choose_last_of_3,object_v_name_3"
SKILLS = (
    "present_past,capitalize,singular_plural,choose_first_of_3,"
    "verb_third_person,comparative,lowercase_first_letter,color_v_animal_3"
)


def ask(model: Any, tokenizer: Any, function: Function, config: VectorConfig) -> list[bool]:
    """Whether each held-out question is answered rightly after ten examples."""
    parts = parts_of(function, config)
    prompts = few_shot_prompts(tokenizer, parts.train, parts.test[: config.asked], config.shots, config.seed + 1)
    return answered(model, prompts, tokens=1024)


def tuned(model: Any, tokenizer: Any, task: Function, config: VectorConfig, passes: int, rate: float) -> Delta:
    """What plain fine-tuning on the task's training pairs changes, asked without examples."""
    pairs = [(f"Q: {pair.input}\nA:", pair.output) for pair in parts_of(task, config).train]
    names = [matrix.name for matrices in layout_of(model).mlp_matrices for matrix in matrices]
    settings = TrainingConfig(steps=passes, learning_rate=rate, stop_loss=0)
    found = train(model, tokenizer, pairs, names, settings)
    return Delta({name: Change(dense=tensor) for name, tensor in found.deltas.items()})


def chance(likeness: Sequence[float], left: Sequence[float], draws: int = 10_000) -> float:
    """How often a random pairing has at least this rank correlation."""
    real = rank_correlation(torch.tensor(likeness), torch.tensor(left))
    drawn, shuffled = random.Random(0), list(left)
    hits = 0
    for _ in range(draws):
        drawn.shuffle(shuffled)
        hits += rank_correlation(torch.tensor(likeness), torch.tensor(shuffled)) >= real
    return hits / draws


def tell(results: Sequence[dict[str, Any]]) -> None:
    """The pairs and their rank correlations."""
    print(
        "| new task | skill | likeness before | right before | right after | change (95%) |\n|---|---|---|---|---|---|"
    )
    for row in results:
        for skill, found in sorted(row["skills"].items(), key=lambda pair: row["likeness"].get(pair[0], 2)):
            change = paired_difference(found["before"], found["after"])
            shares = [sum(found[when]) / len(found[when]) for when in ("before", "after")]
            print(
                f"| {row['task']} | {skill} | {row['likeness'][skill]:.3f} | {shares[0]:.0%} | {shares[1]:.0%} | "
                f"{100 * change.value:+.0f} ({100 * change.low:+.0f} to {100 * change.high:+.0f}), n {change.n} |"
            )
    pairs = [(row["likeness"][skill], _change(found)) for row in results for skill, found in row["skills"].items()]
    likeness, left = zip(*pairs, strict=True)
    rho = rank_correlation(torch.tensor(likeness), torch.tensor(left))
    print(f"\nall {len(pairs)} pairs: Spearman {rho:+.2f}, chance of as much {chance(likeness, left):.3f}")
    for row in results:
        own = [(row["likeness"][skill], _change(found)) for skill, found in row["skills"].items()]
        rho = rank_correlation(*(torch.tensor(column) for column in zip(*own, strict=True)))
        print(f"{row['task']}: Spearman {rho:+.2f} over {len(own)} skills")


def _change(found: dict[str, list[bool]]) -> float:
    return (sum(found["after"]) - sum(found["before"])) / len(found["before"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--skills", default=SKILLS)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(describe_machine()), flush=True)
    given.work.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(resolve(given.model))
    side = Side(given.model, Side.of_checkpoint(given.model).id, lambda: (model, tokenizer))
    bench, skills = Bench(VectorConfig(), given.work), functions_named(given.skills.split(","))
    results = []
    for task in functions_named(given.tasks.split(",")):
        path = given.work / f"{task.name}-{given.passes}-{given.rate:g}.json"
        if not path.exists():
            risks = rank_risk(side, task, skills, bench)
            kept = [skill for skill in skills if skill.name not in risks.left_out and skill.name != task.name]
            before = {skill.name: ask(model, tokenizer, skill, bench.config) for skill in kept}
            with applied(model, tuned(model, tokenizer, task, bench.config, given.passes, given.rate)):
                after = {skill.name: ask(model, tokenizer, skill, bench.config) for skill in kept}
            found = {
                "task": task.name,
                "likeness": {skill.name: skill.similarity for skill in risks.skills},
                "skills": {name: {"before": before[name], "after": after[name]} for name in before},
            }
            path.write_text(json.dumps(found))
            print(f"{task.name}: measured", flush=True)
        results.append(json.loads(path.read_text()))
    tell(results)


if __name__ == "__main__":
    main()
