"""Fast search for target values against a plain full-forward loop: same δ, how much less time.

    python -m bench.values --model smollm2-135m --facts 8

The plain loop is what a straightforward implementation of the papers does: per fact, every step runs all
rows in full through all layers, with logits everywhere. Both use the same contexts, steps and stops, and one thread.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.editing.subjects import Contexts, SubjectRow, essence_rows, sample_contexts, subject_states, target_rows
from perdure.editing.values import ValueConfig, find_values
from perdure.models import layout_of, load, patch_output
from perdure.models.tokens import pad
from perdure.requests import Fact, read_facts

DEMO_FACTS = Path(__file__).parents[1] / "src/perdure/demo/facts.jsonl"


def plain_values(
    model: Any,
    tokenizer: Any,
    facts: list[Fact],
    layer: int,
    anchors_ND: Tensor,
    contexts: Contexts,
    config: ValueConfig,
) -> Tensor:
    """δ [N, D] by full forward passes, fact by fact."""
    shifts, fixed = [], config.model_copy(update={"clamp": config.radius(len(facts))})
    for fact, anchor_D in zip(facts, anchors_ND, strict=True):
        rows = target_rows(tokenizer, [fact], contexts) + essence_rows(tokenizer, [fact])
        shifts.append(_plain_value(model, rows, layer, float(anchor_D.float().norm()), fixed))
    return torch.stack(shifts)


def _plain_value(model: Any, rows: list[SubjectRow], layer: int, anchor: float, config: ValueConfig) -> Tensor:
    layout = layout_of(model)
    batch = pad([row.ids for row in rows])
    shift = torch.zeros(layout.d_model, requires_grad=True)
    adam = torch.optim.Adam([shift], lr=config.rate(anchor, layout.d_model), betas=config.betas)
    at = torch.tensor([row.at for row in rows])

    def add(hidden_BTD: Tensor) -> Tensor:
        changed = hidden_BTD.clone()
        changed[torch.arange(len(rows)), at] += shift
        return changed

    reference = None
    for step in range(config.steps):
        with patch_output(layout.blocks[layer], add):
            log_probs = model(**batch.inputs()).logits.log_softmax(2)
        nlls = []
        for index, row in enumerate(rows[:-1]):
            places = torch.arange(row.target, len(row.ids))
            nlls.append(-log_probs[index, places - 1, batch.ids[index, places]].mean())
        essence = log_probs[len(rows) - 1, len(rows[-1].ids) - 1]
        reference = essence.detach() if reference is None else reference
        kl = (essence.exp() * (essence - reference)).sum()
        loss = torch.stack(nlls).mean() + config.kl_weight * kl + config.weight_decay * shift.norm() / anchor**2
        if loss.item() < config.stop_loss or step == config.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            shift *= min(1.0, config.radius(1) * anchor / float(shift.norm()))
    return shift.detach()


def compare(model: Any, tokenizer: Any, facts: list[Fact], layer: int, config: ValueConfig) -> dict[str, float]:
    """Seconds of both loops and the largest relative difference of a δ."""
    contexts = sample_contexts()
    rows = target_rows(tokenizer, facts, contexts)
    anchors = subject_states(model, layout_of(model), rows, contexts.weights(), layers=[layer], last=layer).block
    start = time.process_time()
    fast = find_values(model, tokenizer, facts, layer, anchors, contexts=contexts, config=config).shift
    middle = time.process_time()
    plain = plain_values(model, tokenizer, facts, layer, anchors, contexts, config)
    end = time.process_time()
    return {
        "facts": len(facts),
        "plain_cpu_seconds": end - middle,
        "fast_cpu_seconds": middle - start,
        "ratio": (end - middle) / (middle - start),
        "largest_relative_difference": float(((fast - plain).norm(dim=1) / plain.norm(dim=1)).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--file", type=Path, default=DEMO_FACTS)
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    facts = list(read_facts(given.file, skip_bad=True).facts[: given.facts])
    print(json.dumps(compare(model, tokenizer, facts, given.layer, ValueConfig(steps=given.steps)), indent=2))


if __name__ == "__main__":
    main()
