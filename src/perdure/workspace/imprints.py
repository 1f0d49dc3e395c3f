"""What questions leave in a version, read once and kept; and what of it a new task may put at risk."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from perdure.content import atomic_path, digest_json
from perdure.measuring.advice import Risk
from perdure.measuring.statistics import wilson
from perdure.measuring.task_likeness import (
    LEAST_COMPARED,
    Imprint,
    feature_overlap,
    pairs_of_function,
    read_imprint,
    shown_rows,
)
from perdure.requests.functions import Function
from perdure.requests.tasks import Example
from perdure.tuning.encoding import Row, row_of
from perdure.tuning.reading import evenly
from perdure.tuning.regularizers.function_vector import FunctionVectorConfig
from perdure.tuning.run import pairs_of
from perdure.tuning.shown import has_pictures
from perdure.vectors import similarity
from perdure.workspace.learnt import Learnt
from perdure.workspace.records import Version
from perdure.workspace.seeing import processor_for

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace

_FORMAT = 1  # of how imprints are taken; those of another format are taken again
_QUESTIONS = 12  # of each skill or task: enough for a ranking
_COULD = 0.5  # of a skill's questions: with fewer right ones there is little to lose
_PROMPTS = FunctionVectorConfig(prompts=_QUESTIONS)
_DIGITS = 4

Both = tuple[Imprint | None, Imprint]
"""Of prompts with examples, if there are enough pairs to show, and of questions as they are trained on."""


class Imprints:
    """What questions leave in one version; kept in the workspace under all that it depends on.

    Args:
        shop: The workspace.
        version: The version.
        heads: Heads (layer, head) that carry skills; none where none is known.
    """

    def __init__(self, shop: "Workspace", version: Version, heads: Sequence[tuple[int, int]]) -> None:
        self.shop, self.version, self.heads = shop, version, tuple(heads)

    def of_examples(self, name: str, examples: Sequence[Example]) -> Both:
        """Of a task, from examples that it has."""
        _, tokenizer = self.shop.load(self.version)
        processor = processor_for(self.shop, self.version, examples)
        texts = pairs_of(example for example in examples if not has_pictures(example))
        shown = shown_rows(tokenizer, texts, _PROMPTS)
        own = [row_of(tokenizer, example, processor) for example in evenly(examples, _QUESTIONS)]
        return self._read(f"{name}, shown", shown) if shown else None, self._read(name, own)

    def of_function(self, function: Function) -> Imprint | None:
        """Of a skill; None where it has too few pairs."""
        _, tokenizer = self.shop.load(self.version)
        rows = shown_rows(tokenizer, pairs_of_function(function.pairs), _PROMPTS)
        return self._read(function.name, rows) if rows else None

    def _read(self, name: str, rows: Sequence[Row]) -> Imprint:
        if any(row.shown for row in rows):  # pictures are no part of the tokens
            return self._fresh(name, rows)
        about = [_FORMAT, self.version.id, [list(at) for at in self.heads], [[row.ids, row.asked] for row in rows]]
        path = self.shop.folder / "vectors" / "imprints" / f"{digest_json(about)}.safetensors"
        if not path.is_file():
            _keep(path, self._fresh(name, rows))
        return _kept(path)

    def _fresh(self, name: str, rows: Sequence[Row]) -> Imprint:
        model, _ = self.shop.load(self.version)
        stage = f"{self.version.name}: reading {name}"
        return read_imprint(model, rows, self.heads, progress=self.shop.progress, stage=stage)


def rank_risks(
    imprints: Imprints, new: Both, earlier: Sequence[Learnt], functions: Iterable[Function]
) -> tuple[tuple[Risk, ...], dict[str, str]]:
    """Earlier tasks, then skills, those with the least like vectors first; and why others are not ranked.

    Args:
        imprints: Of the version before the task.
        new: What the task leaves in it.
        earlier: What it has learnt.
        functions: Skills that it may have.
    """
    known: dict[tuple[str, str], Both] = {}
    left_out: dict[str, str] = {}
    for task in earlier:
        if task.test:
            known["task", task.name] = imprints.of_examples(task.name, task.test)
        else:
            left_out[task.name] = "no test rows of it were kept"
    for function in functions:
        found = imprints.of_function(function)
        if found is None or found.right < _COULD * found.n:
            right = f"{found.right} of {found.n} right" if found else "too few pairs"
            left_out[function.name] = f"{right} in context: little to lose"
        else:
            known["skill", function.name] = (found, found)
    overlaps = _overlaps(new[1], [own for _, own in known.values()])
    risks = [
        Risk(
            name=name,
            kind=kind,
            likeness=_likeness(new[0], shown) if imprints.heads else None,
            overlap=overlap,
            right=wilson(shown.right, shown.n) if shown else None,
        )
        for ((kind, name), (shown, _)), overlap in zip(known.items(), overlaps, strict=True)
    ]
    return tuple(sorted(risks, key=lambda risk: (risk.kind != "task", risk.likeness or 0.0))), left_out


def _likeness(one: Imprint | None, other: Imprint | None) -> float | None:
    return None if one is None or other is None else round(similarity(one.vector_D, other.vector_D), _DIGITS)


def _overlaps(own: Imprint, others: Sequence[Imprint]) -> list[float | None]:
    if 1 + len(others) < LEAST_COMPARED:
        return [None] * len(others)
    found = feature_overlap(own.states_LD, torch.stack([one.states_LD for one in others]))
    return [round(value, _DIGITS) for value in found.tolist()]


def _keep(path: Path, imprint: Imprint) -> None:
    counts = torch.tensor([imprint.right, imprint.n])
    with atomic_path(path) as scratch:
        save_file({"vector": imprint.vector_D, "states": imprint.states_LD, "counts": counts}, scratch)


def _kept(path: Path) -> Imprint:
    tensors = load_file(path)
    right, total = tensors["counts"].tolist()
    return Imprint(tensors["vector"], tensors["states"], right, total)
