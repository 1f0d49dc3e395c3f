"""Effects of all heads, by three routes on the same prompts: a forward pass a head, a cached token a head, attribution.

    python -m bench.vectors --prompts 3
    python -m bench.vectors --prompts 3 --function present_past --model smollm2-135m

The naive route runs the whole prompt once for every head. The exact one reads the prompt once and runs its last token
with all heads as rows. With the prefilter one backward pass of that token estimates all heads, and only the most
promising ones are run. Printed are CPU seconds per prompt, the ratios to the naive route, the largest difference
of an effect on one prompt, and the ten strongest heads by each route. Fails when the exact effects differ by more than
1e-5 (float32 through all layers rounds that much; the tests hold tiny models to 1e-6), or when the prefilter misses one
of the ten strongest.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.machine import describe_machine
from perdure.measuring.skill_comparison import functions_named
from perdure.models import load
from perdure.vectors import VectorConfig, few_shot_prompts, indirect_effects, mean_activations, naive_effects, strongest
from perdure.vectors.studies import parts_of

LARGEST_DIFFERENCE = 1e-5


def timed(run: Callable[[], Tensor], count: int) -> tuple[Tensor, float]:
    """What a route found, and its CPU seconds per prompt."""
    start = time.process_time()
    found = run()
    return found, (time.process_time() - start) / count


def compare(model: Any, tokenizer: Any, name: str, count: int, config: VectorConfig) -> dict[str, Any]:
    """The three routes on the same prompts."""
    pairs = parts_of(functions_named([name])[0], config).train
    clean = few_shot_prompts(tokenizer, pairs, pairs[: config.shuffled], config.shots, config.seed)
    prompts = few_shot_prompts(tokenizer, pairs, pairs[:count], config.shots, config.seed, shuffled=True)
    mean_LHK = mean_activations(model, clean).mean_LHK
    indirect_effects(model, prompts[:1], mean_LHK, prefilter=config.prefilter)  # whatever is done once is done
    naive, slow = timed(lambda: naive_effects(model, prompts, mean_LHK), count)
    exact, fast = timed(lambda: indirect_effects(model, prompts, mean_LHK), count)
    some, fastest = timed(lambda: indirect_effects(model, prompts, mean_LHK, prefilter=config.prefilter), count)
    tops = {
        route: strongest(effect.mean(0), 10)
        for route, effect in (("naive", naive), ("exact", exact), ("prefilter", some))
    }
    return {
        "function": name,
        "prompts": count,
        "tokens_a_prompt": round(sum(len(prompt.ids) for prompt in prompts) / count, 1),
        "heads": list(mean_LHK.shape[:2]),
        "cpu_seconds_a_prompt": {"naive": slow, "exact": fast, "prefilter": fastest},
        "ratio": {"exact": slow / fast, "prefilter": slow / fastest},
        "largest_difference_exact": float((naive - exact).abs().max()),
        "same_ranking_exact": tops["naive"] == tops["exact"],
        "same_top_10_prefilter": set(tops["naive"]) == set(tops["prefilter"]),
        "top_10": tops["naive"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--function", default="present_past")
    parser.add_argument("--prompts", type=int, default=3, help="the naive route takes minutes for each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    print(json.dumps(describe_machine()), flush=True)
    found = compare(model, tokenizer, given.function, given.prompts, VectorConfig())
    print(json.dumps(found, indent=2), flush=True)
    if found["largest_difference_exact"] > LARGEST_DIFFERENCE or not found["same_top_10_prefilter"]:
        raise SystemExit("the fast routes disagree with the naive one")


if __name__ == "__main__":
    main()
