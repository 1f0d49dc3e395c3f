"""What one model does after some edits: the taught facts, what it could do before, and held-out text."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.edits.reading import score_and_predict
from bench.edits.samples import Questions
from perdure.content import atomic_path, digest_json, write_atomic
from perdure.endings import cut, has_ended
from perdure.measuring import Outcomes, Suite, measure_language, measure_retention
from perdure.measuring.answers import has_said, says
from perdure.measuring.retention import FunctionsConfig
from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode
from perdure.requests import Fact

_MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class FactOutcomes:
    """What one model does about the facts of a sequence.

    Attributes:
        margins: From "prompt" (all facts), "paraphrase" and "neighbour" (the sample) to how much likelier the
            answer wanted after the edit is than the other one, in nats per token. Teacher-forced.
        said: From "prompt" and "paraphrase" to whether free generation says the new answer (the sample).
        next_tokens: Log-probabilities [N, V] of the token after each neighbour question.
    """

    margins: dict[str, tuple[float, ...]]
    said: dict[str, tuple[bool, ...]]
    next_tokens: Tensor

    def save(self, path: Path) -> None:
        """Write to one file, atomically."""
        header = {"outcomes": json.dumps({"margins": self.margins, "said": self.said})}
        with atomic_path(path) as scratch:
            save_file({"next_tokens": self.next_tokens.contiguous()}, scratch, metadata=header)

    @classmethod
    def load(cls, path: Path) -> "FactOutcomes":
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as stream:
            header = json.loads(stream.metadata()["outcomes"])
            next_tokens = stream.get_tensor("next_tokens")
        tuples = {part: {kind: tuple(found) for kind, found in header[part].items()} for part in ("margins", "said")}
        return cls(tuples["margins"], tuples["said"], next_tokens)


def ask_facts(model: Any, tokenizer: Any, questions: Questions) -> FactOutcomes:
    """What the model does about the facts: all of them in probabilities, the sample freely as well."""
    asked = _comparisons(questions)
    pairs = [(prompt, answer) for entries in asked.values() for prompt, *answers in entries for answer in answers]
    neighbours = [prompt for prompt, _, _ in asked["neighbour"]]
    scores, next_NV = score_and_predict(model, tokenizer, pairs, neighbours)
    margins, start = {}, 0
    for kind, entries in asked.items():
        wanted = scores[start : start + 2 * len(entries) : 2]
        other = scores[start + 1 : start + 2 * len(entries) : 2]
        margins[kind] = tuple(a - b for a, b in zip(wanted, other, strict=True))
        start += 2 * len(entries)
    prompts = [(fact.prompt, fact.target_new) for fact in questions.sample]
    paraphrases = [(text, fact.target_new) for fact in questions.sample for text in fact.paraphrases[:1]]
    said = _say(model, tokenizer, [*prompts, *paraphrases])
    return FactOutcomes(margins, {"prompt": said[: len(prompts)], "paraphrase": said[len(prompts) :]}, next_NV)


def _comparisons(questions: Questions) -> dict[str, list[tuple[str, str, str]]]:
    """By kind: prompt, the answer wanted after the edit, and the one that it is compared with."""
    pairs = [(fact, fact.target_true or "") for fact in questions.sample]
    near = [(fact, near) for fact in questions.sample for near in fact.neighbours[:1] if near.answer]
    return {
        "prompt": [(fact.prompt, fact.target_new, fact.target_true or "") for fact in questions.facts],
        "paraphrase": [(text, fact.target_new, old) for fact, old in pairs for text in fact.paraphrases[:1]],
        "neighbour": [(question.prompt, question.answer or "", fact.target_new) for fact, question in near],
    }


def _say(model: Any, tokenizer: Any, asked: Sequence[tuple[str, str]]) -> tuple[bool, ...]:
    """Whether the first sentence of the greedy continuation of each prompt holds the answer."""
    written = continue_rows(
        model,
        tokenizer,
        [encode(tokenizer, prompt) for prompt, _ in asked],
        lambda row, text: has_said(asked[row][1], text) or has_ended(text, asked[row][1]),
        max_new_tokens=_MAX_NEW_TOKENS,
    )
    return tuple(says(answer, cut(text, answer)) for (_, answer), text in zip(asked, written, strict=True))


@dataclass(frozen=True)
class Exam:
    """What a model is asked besides the facts.

    Attributes:
        suite: The questions and the held-out passages.
        settings: Of the measures, by name.
    """

    suite: Suite
    settings: dict[str, BaseModel]

    @property
    def id(self) -> str:
        """What names this exam."""
        return digest_json({"suite": self.suite.id, **{k: v.model_dump() for k, v in self.settings.items()}})

    def hold(self, model: Any, tokenizer: Any) -> Outcomes:
        """What the model does on it.

        Raises:
            ModelError: The model gives a passage no finite probability.
        """
        return Outcomes(
            suite_id=self.suite.id,
            retention=measure_retention(model, tokenizer, self.suite, settings=self.settings),
            language=measure_language(model, tokenizer, self.suite),
        )


def full_exam(suite: Suite) -> Exam:
    """Everything in the suite, as a workspace measures it."""
    return Exam(suite, {})


def short_exam(suite: Suite, *, pairs: int, passages: int, shots: int = 5) -> Exam:
    """About `pairs` pairs spread over all functions, every fact once, and `passages` passages.

    The draw is seeded and the same for every run, so that all cells are asked the same.
    """
    draw = random.Random(0)
    each = max(2, round(pairs / max(1, len(suite.functions))))
    functions = {name: tuple(draw.sample(found, min(each, len(found)))) for name, found in suite.functions.items()}
    facts = tuple(fact.model_copy(update={"paraphrases": ()}) for fact in suite.facts)
    held_out = tuple(draw.sample(suite.passages, min(passages, len(suite.passages))))
    name = digest_json({"suite": suite.id, "pairs": pairs, "passages": passages})
    return Exam(Suite(name, functions, facts, (), held_out), {"functions": FunctionsConfig(shots=shots)})


class Frozen:
    """The original model's outcomes, measured once and kept in a folder."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path, model_id: str) -> None:
        self._model, self._tokenizer, self._folder, self._model_id = model, tokenizer, folder, model_id

    def facts(self, questions: Questions) -> FactOutcomes:
        """What it does about the facts."""
        path = self._folder / f"facts-{self._name(_ids(questions.facts), _ids(questions.sample))}.safetensors"
        if not path.is_file():
            ask_facts(self._model, self._tokenizer, questions).save(path)
        return FactOutcomes.load(path)

    def exam(self, exam: Exam) -> Outcomes:
        """What it does on an exam."""
        path = self._folder / f"exam-{self._name(exam.id)}.json"
        if not path.is_file():
            write_atomic(path, exam.hold(self._model, self._tokenizer).model_dump_json().encode())
        return Outcomes.model_validate_json(path.read_bytes())

    def _name(self, *parts: Any) -> str:
        return digest_json([self._model_id, *parts])[:16]


def _ids(facts: Sequence[Fact]) -> list[str]:
    return [fact.id for fact in facts]


def agreement(original: FactOutcomes, edited: FactOutcomes) -> list[bool]:
    """Whether the most probable token after each neighbour question is still the same."""
    same: list[bool] = (original.next_tokens.argmax(1) == edited.next_tokens.argmax(1)).tolist()
    return same


def divergence(original: FactOutcomes, edited: FactOutcomes) -> float:
    """The mean over neighbour questions of KL(original ‖ edited) of the next token, in nats."""
    before_NV, after_NV = original.next_tokens.double(), edited.next_tokens.double()
    return float((before_NV.exp() * (before_NV - after_NV)).sum(1).mean()) if len(before_NV) else 0.0
