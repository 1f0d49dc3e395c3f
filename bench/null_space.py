"""AlphaEdit's null space: how much of the text an edit moves, by how many directions it may be written along.

    python -m bench.null_space --facts FILE --layers 2,4,5,6,7,12,20,28
    python -m bench.null_space --facts FILE --edits
    python -m bench.null_space --facts FILE --edits memit "calibrated, ridge 0.25"

The first table needs C and the facts' keys only. A fact with key k, written along the null space alone, moves the
outputs over the text by kᵀP C P k / ‖P k‖⁴ per unit residual; the least that any change can do is 1 / (kᵀC⁻¹k).
The table gives the median over the facts of the one over the other. --edits makes each edit and asks what it
learnt and what it cost; the target values are found once and used for all.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.machine import describe_machine
from perdure.editing import AlphaEditConfig, MemitConfig, Moments, Surroundings, alphaedit, applied, memit
from perdure.editing.layers import default_layers
from perdure.editing.solving import NullSpace, null_space
from perdure.editing.statistics import Eigenbasis
from perdure.editing.subjects import sample_contexts, subject_states, target_rows
from perdure.measuring import Suite, measure_edits, measure_language, references_from
from perdure.models import layout_of, load
from perdure.requests import Fact, read_facts

CALIBRATED = "calibrated"
SPACES: dict[str, dict[str, float]] = {
    CALIBRATED: {},
    "share 0.01": {"share": 0.01},
    "share 0.1": {"share": 0.1},
    "share 0.5": {"share": 0.5},
    "everything": {"share": 1.0},
}
EDITS: dict[str, dict[str, float] | None] = {
    "memit": None,
    "calibrated, ridge 0.05": {"ridge": 0.05},
    "calibrated, ridge 0.25": {},
    "calibrated, ridge 1": {"ridge": 1.0},
    "null_share 0.02": {"null_share": 0.02},
    "null_share 0.1": {"null_share": 0.1},
    "null_share 0.3": {"null_share": 0.3},
    "null_share 1": {"null_share": 1.0},
    "threshold 0.02, l2 10": {"threshold": 0.02, "l2": 10.0},
}


def disturbance(basis: Eigenbasis, key_IN: Tensor, space: NullSpace) -> float:
    """How much more than necessary an edit along the null space moves the outputs over the text, median of facts."""
    key_IN = basis.vectors.T @ key_IN
    least_N = 1 / (key_IN**2 / basis.values[:, None]).sum(0)
    free_RN, values_R = key_IN[: space.basis.shape[1]], basis.values[: space.basis.shape[1]]
    moved_N = (free_RN**2 * values_R[:, None]).sum(0) / (free_RN**2).sum(0) ** 2
    return float((moved_N / least_N).median())


def on_paper(
    model: Any, tokenizer: Any, facts: list[Fact], layers: list[int], moments: Moments
) -> list[dict[str, Any]]:
    """One row for each layer: the calibrated null space, and the disturbance with it and with others."""
    contexts = sample_contexts()
    rows = target_rows(tokenizer, facts, contexts)
    states = subject_states(model, layout_of(model), rows, contexts.weights(), layers=layers, last=layers[-1])
    found = []
    for layer, basis in moments.eigenbases(layers).items():
        chosen = null_space(basis)
        size = torch.arange(1, len(basis.values) + 1)
        limits = basis.values[size % 10 == 0]
        every = [chosen, *(null_space(basis, threshold=float(limit) * (1 + 1e-9)) for limit in limits)]
        found.append(
            {
                "layer": layer,
                "facts": len(facts),
                "dimension": chosen.basis.shape[1],
                "share": round(chosen.share, 3),
                "largest_eigenvalue_of_trace": round(float(basis.values[-1] / basis.values.sum()), 3),
                "best": round(min(disturbance(basis, states.keys[layer], space) for space in every), 2),
                **{
                    name: round(disturbance(basis, states.keys[layer], null_space(basis, **limit)), 2)
                    for name, limit in SPACES.items()
                },
            }
        )
    return found


class Trial:
    """Edits of the same facts under different settings, each measured and taken back."""

    def __init__(self, model: Any, tokenizer: Any, facts: list[Fact], moments: Moments) -> None:
        self.model, self.tokenizer, self.facts, self.moments = model, tokenizer, facts, moments
        self.suite = Suite.built_in()
        self.before = measure_edits(model, tokenizer, facts)
        self.values: dict[str, Tensor] = {}

    def run(self, name: str, settings: dict[str, float] | None) -> dict[str, Any]:
        """One edit: how many facts were learnt, and what it cost."""
        around = Surroundings(moments=self.moments, values=self.values)
        config = MemitConfig() if settings is None else AlphaEditConfig.model_validate(settings)
        method = memit if settings is None else alphaedit
        delta = method(self.model, self.tokenizer, self.facts, config, around)
        self.values = dict(delta.values)
        with applied(self.model, delta):
            found = self.measure()
        largest = max(float(torch.linalg.matrix_norm(change.value(), 2)) for change in delta.changes.values())
        return {"edit": name, "facts": len(self.facts), **found, "sigma_max": round(largest, 1)}

    def measure(self) -> dict[str, Any]:
        """The model as it is now: facts said and likelier, and the perplexity of the held-out passages."""
        answers = measure_edits(self.model, self.tokenizer, self.facts, references=references_from(self.before))
        passages = measure_language(self.model, self.tokenizer, self.suite)
        found: dict[str, Any] = {"says": sum(answer.contains for answer in answers if answer.kind == "prompt")}
        for kind in ("prompt", "paraphrase", "neighbour"):
            pairs = [
                (answer.log_prob_new, answer.log_prob_old)
                for answer in answers
                if answer.kind == kind and answer.log_prob_new is not None and answer.log_prob_old is not None
            ]
            found[f"{kind}_likelier"] = sum((new > old) == (kind != "neighbour") for new, old in pairs)
        nll, tokens = sum(passage.nll for passage in passages), sum(passage.tokens for passage in passages)
        return {**found, "perplexity": round(math.exp(nll / tokens), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", default="", help="comma-separated; those that are edited when not given")
    parser.add_argument("--edits", nargs="*", choices=EDITS, help="make these edits as well; all when none is named")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    facts = list(read_facts(given.facts, skip_bad=True).facts)
    moments = Moments.of_model(model, tokenizer)
    layers = [int(word) for word in given.layers.split(",") if word] or default_layers(layout_of(model))
    print(json.dumps(describe_machine()))
    for row in on_paper(model, tokenizer, facts, layers, moments):
        print(json.dumps(row), flush=True)
    if given.edits is not None:
        trial = Trial(model, tokenizer, facts, moments)
        print(json.dumps({"edit": "before", "facts": len(facts), **trial.measure()}), flush=True)
        for name in given.edits or EDITS:
            print(json.dumps(trial.run(name, EDITS[name])), flush=True)


if __name__ == "__main__":
    main()
