"""Seconds per edit of MEMIT as it is here and as a plain implementation of the published loop runs it.

    python -m bench.published --facts 4 --prefixes 20,5

The plain loop follows the papers' description: one fact at a time; at every step all rows in full through the whole
network, with logits everywhere; keys and residuals layer by layer from whole passes; a direct solve. Both have the
same facts, layers, Adam, steps, stop rule and second moments (computed before the clock starts), and one thread.
ROME's published setting has 20 prefixes beside the bare prompt, MEMIT's 5; with the row “{subject} is a” that makes
22 and 7 rows a fact. Here a fact has 5 prefixes. After both edits the new answers are scored alike, on prompts and
paraphrases without any prefix.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from bench.machine import describe_machine
from bench.values import DEMO_FACTS, plain_values
from perdure.deltas import Delta
from perdure.editing import MemitConfig, Moments, Surroundings, applied, apply_delta, memit, restoring
from perdure.editing.layers import default_layers
from perdure.editing.matrices import matrix_delta
from perdure.editing.subjects import Contexts, SubjectRow, sample_contexts, target_rows
from perdure.models import capture, layout_of, load, score_targets
from perdure.models.tokens import pad
from perdure.requests import Fact, read_facts


def plain_memit(
    model: Any, tokenizer: Any, facts: Sequence[Fact], contexts: Contexts, config: MemitConfig, moments: Moments
) -> Delta:
    """The change that MEMIT solves, by the plain loop."""
    layout = layout_of(model)
    layers = list(config.layers or default_layers(layout))
    rows = target_rows(tokenizer, facts, contexts)
    _, anchor_ND = _plain_states(model, rows, contexts, layers[-1], layers[-1])
    shift_ND = plain_values(model, tokenizer, list(facts), layers[-1], anchor_ND, contexts, config.values)
    goal_ND, total = anchor_ND + shift_ND.double(), Delta()
    weight = config.moment_weight or layout.d_ff / 4
    with restoring(model, [layout.mlp_out[layer].name for layer in layers]):
        for number, layer in enumerate(layers):
            key_IN, now_ND = _plain_states(model, rows, contexts, layer, layers[-1])
            bracket_II = weight * moments.of([layer])[layer].ridged + key_IN @ key_IN.T
            right_NI = torch.linalg.solve(bracket_II, key_IN).T
            residual_ON = (goal_ND - now_ND).T / (len(layers) - number)
            step = matrix_delta(layout.mlp_out[layer], (residual_ON, right_NI), key_IN)
            apply_delta(model, step)
            total = total + step
    return total


def _plain_states(
    model: Any, rows: Sequence[SubjectRow], contexts: Contexts, layer: int, last: int
) -> tuple[Tensor, Tensor]:
    """Keys [I, N] of a layer and the block output [N, D] of the last one, by whole passes, fact by fact."""
    layout, weights = layout_of(model), contexts.weights()
    keys, blocks = [], []
    for fact in range(1 + max(row.fact for row in rows)):
        own = [row for row in rows if row.fact == fact]
        inputs = pad([row.ids for row in own]).inputs()
        with torch.no_grad():
            seen = capture(
                partial(model, **inputs, use_cache=False),
                inputs={"key": layout.mlp_out[layer].module},
                outputs={"block": layout.blocks[last]},
                whole=True,
            )
        inputs_BI = torch.stack([seen["key"][place, row.at].double() for place, row in enumerate(own)])
        keys.append(torch.tensor(weights, dtype=torch.float64) @ inputs_BI)
        blocks.append(seen["block"][0, own[0].at].double())
    return torch.stack(keys, 1), torch.stack(blocks)


def compare(model: Any, tokenizer: Any, facts: Sequence[Fact], prefixes: int, moments: Moments) -> dict[str, Any]:
    """CPU seconds per edit of both editors, their ratio, and what the model gives the new answers after each."""
    config, around = MemitConfig(), Surroundings(moments=moments)
    memit(model, tokenizer, facts[:1], config, around)  # statistics and their factors are ready for both
    start = time.process_time()
    ours = memit(model, tokenizer, facts, config, around)
    middle = time.process_time()
    plain = plain_memit(model, tokenizer, facts, sample_contexts(prefixes), config, moments)
    end = time.process_time()
    scores = {"ours": _scores(model, tokenizer, facts, ours), "plain": _scores(model, tokenizer, facts, plain)}
    return {
        "facts": len(facts),
        "rows_of_a_fact": {"ours": config.contexts + 2, "plain": prefixes + 2},
        "cpu_seconds_per_edit": {"ours": (middle - start) / len(facts), "plain": (end - middle) / len(facts)},
        "ratio": (end - middle) / (middle - start),
        "nll_of_new_answers": scores,
        "ours_is_as_low": scores["ours"]["prompts"] <= scores["plain"]["prompts"],
    }


def _scores(model: Any, tokenizer: Any, facts: Sequence[Fact], delta: Delta) -> dict[str, float]:
    """The mean NLL per token of the new answers with the change, in nats."""
    asked = {
        "prompts": [(fact.prompt, fact.target_new) for fact in facts],
        "paraphrases": [(text, fact.target_new) for fact in facts for text in fact.paraphrases],
    }
    with applied(model, delta):
        return {
            kind: fmean(-score.mean_log_prob for score in score_targets(model, tokenizer, pairs))
            for kind, pairs in asked.items()
            if pairs
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--file", type=Path, default=DEMO_FACTS)
    parser.add_argument("--prefixes", default="20,5", help="prefixes of the plain loop, beside the bare prompt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    facts = read_facts(given.file, skip_bad=True).facts[: given.facts]
    moments = Moments.of_model(model, tokenizer)
    print(json.dumps(describe_machine()), flush=True)
    for prefixes in map(int, given.prefixes.split(",")):
        print(json.dumps(compare(model, tokenizer, facts, prefixes, moments), indent=2), flush=True)


if __name__ == "__main__":
    main()
