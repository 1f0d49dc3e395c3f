"""Rows run and measured: every checkpoint of every sequence under every form of restraint, each cell once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.edits.cells import Cell, Key, Results
from bench.edits.judging import finite_or_none, judge_facts, judge_language, seconds_per_edit, worst_of
from bench.edits.outcomes import Exam, FactOutcomes, Frozen, ask_facts, divergence
from bench.edits.rows import Row, restrain
from bench.edits.samples import Questions, check_checkpoints, draw_facts
from bench.edits.sequence import Course, Solved
from bench.edits.spectra import BaseSpectra
from perdure.content import digest_json
from perdure.deltas import Change, Delta
from perdure.editing import Moments, applied
from perdure.errors import ModelError
from perdure.measuring import Outcomes, build_retention
from perdure.requests import Fact

Tell = Callable[[str], None]

ORIGINAL = "original"
"""The name of the row of the model without edits."""


@dataclass(frozen=True)
class Sizes:
    """How much is asked.

    Attributes:
        batch_size: Facts solved together, where the row does not say.
        sample: At most this many facts are asked freely, in other words and about their neighbours.
        exam: What else is asked.
        full_exam: What is asked instead from `full_from` edits on.
        full_from: See there; never when not given.
    """

    batch_size: int
    sample: int
    exam: Exam
    full_exam: Exam
    full_from: int | None = None

    def exam_after(self, edits: int) -> Exam:
        """What is asked besides the facts after so many edits."""
        return self.full_exam if self.full_from is not None and edits >= self.full_from else self.exam


@dataclass
class Comparison:
    """The table being filled.

    Attributes:
        model: The frozen original; it has its own weights whenever nothing is solved or measured.
        tokenizer: Its tokenizer.
        model_id: What names it.
        sizes: How much is asked.
        work: Where unfinished and intermediate work is kept.
        results: Where finished cells are kept.
        moments: Second moments of the model.
        tell: Told, in words, how far the work is.
    """

    model: Any
    tokenizer: Any
    model_id: str
    sizes: Sizes
    work: Path
    results: Results
    moments: Moments
    tell: Tell = lambda _words: None
    _spectra: BaseSpectra = field(init=False)
    _frozen: Frozen = field(init=False)

    def __post_init__(self) -> None:
        self._spectra = BaseSpectra(self.model)
        self._frozen = Frozen(self.model, self.tokenizer, self.work / ORIGINAL, self.model_id)

    def run(self, row: Row, dataset: str, pool: Sequence[Fact], seed: int, checkpoints: Sequence[int]) -> None:
        """Fill the cells of one row, dataset and seed at every checkpoint; those that are there stay."""
        batch_size = row.batch_size or self.sizes.batch_size
        ends = check_checkpoints(checkpoints, batch_size)
        facts = draw_facts(pool, seed, ends[-1])
        run = self._digest(row, dataset, pool, seed, batch_size)
        folder = self.work / f"{row.name}-{dataset}-{seed}-{run[:12]}"
        course = Course(
            self.model, self.tokenizer, facts, row, seed, batch_size, folder, self.moments, self._spectra.ceilings
        )
        for number, end in enumerate(ends):
            blank = Cell(row=row.name, dataset=dataset, seed=seed, key=Key(run=run, exam="", edits=end, form="none"))
            self._checkpoint(course, blank, ends[: number + 1])

    def _checkpoint(self, course: Course, blank: Cell, ends: Sequence[int]) -> None:
        """The cells of one checkpoint, and the original's beside them."""
        questions = Questions.after(course.facts[: ends[-1]], course.seed, self.sizes.sample)
        exam = self.sizes.exam_after(ends[-1])
        asked = digest_json([exam.id, self.sizes.sample, list(ends)])
        keys = {form: blank.key.model_copy(update={"exam": asked, "form": form}) for form in course.row.forms}
        if all(self.results.find(key) for key in keys.values()):
            return
        scoring = _Scoring(questions, exam, tuple(ends), self._frozen.facts(questions), self._frozen.exam(exam))
        self._add_original(scoring, blank, asked)
        name = f"{blank.row}, {blank.dataset}, seed {blank.seed}"
        solved = course.until(ends[-1], keep=ends, on_batch=lambda now: self.tell(f"{name}: {now.done} facts solved"))
        updates = {form: self._restrained(solved, form) for form in keys}
        for form, key in keys.items():
            if self.results.find(key):
                continue
            cell = blank.model_copy(update={"key": key, "seconds": seconds_per_edit(solved.batches)})
            twin = self.results.find(keys[other]) if (other := _twin(form, updates)) else None
            if solved.failure:
                cell = cell.model_copy(update={"failure": solved.failure})
            elif twin:
                cell = twin.model_copy(update={"key": key, "same_as": twin.same_as or other, "measuring_cpu": 0.0})
            else:
                cell = cell.model_copy(update=self._figures(scoring, updates[form], solved))
            self.results.add(cell)
            self.tell(f"{name}: {ends[-1]} edits, {form}: {'same as ' + str(other) if twin else 'measured'}")

    def _restrained(self, solved: Solved, form: str) -> Delta:
        return restrain(solved.delta, self._spectra.ceilings(solved.delta), form)

    def _figures(self, scoring: "_Scoring", update: Delta, solved: Solved) -> dict[str, Any]:
        """The figures of a cell: of the model with the update, beside the original."""
        start = time.process_time()
        figures: dict[str, Any] = {"matrices": worst_of(self._spectra.measures(update, solved.delta))}
        try:
            with applied(self.model, update):
                facts = ask_facts(self.model, self.tokenizer, scoring.questions)
                after = scoring.exam.hold(self.model, self.tokenizer)
            figures |= scoring.compare(facts, after)
        except ModelError as error:
            figures["failure"] = str(error)
        return figures | {"measuring_cpu": time.process_time() - start}

    def _add_original(self, scoring: "_Scoring", blank: Cell, asked: str) -> None:
        """The original's own cell, which says what was so before any edit."""
        run = digest_json([self.model_id, ORIGINAL, [fact.id for fact in scoring.questions.facts]])
        key = blank.key.model_copy(update={"run": run, "exam": asked})
        if not self.results.find(key):
            shares = judge_facts(scoring.facts, scoring.facts, scoring.cohorts)
            self.results.add(blank.model_copy(update={"row": ORIGINAL, "key": key, "shares": shares}))

    def _digest(self, row: Row, dataset: str, pool: Sequence[Fact], seed: int, batch_size: int) -> str:
        """The digest of everything that decides what is solved."""
        return digest_json(
            {
                "model": self.model_id,
                "facts": [dataset, *(fact.id for fact in pool)],
                "editor": [row.editor, row.config(seed).model_dump(mode="json")],
                "between": [row.name, row.keeps_keys, batch_size, row.inside],
                "seed": seed,
                "text": self.moments.text_id,
            }
        )


@dataclass(frozen=True)
class _Scoring:
    """What is asked at a checkpoint, and what the original does on it.

    Attributes:
        questions: About the facts.
        exam: Besides the facts.
        cohorts: Numbers of edits at which an age cohort ends.
        facts: The original's outcomes on the questions.
        outcomes: The original's outcomes on the exam.
    """

    questions: Questions
    exam: Exam
    cohorts: tuple[int, ...]
    facts: FactOutcomes
    outcomes: Outcomes

    def compare(self, facts: FactOutcomes, outcomes: Outcomes) -> dict[str, Any]:
        """The figures of an edited model that these outcomes are of."""
        retention = build_retention(self.outcomes, outcomes)
        return {
            "shares": judge_facts(self.facts, facts, self.cohorts),
            "divergence": finite_or_none(divergence(self.facts, facts)),
            "retention": retention and retention.overall.difference,
            "perplexity": judge_language(self.outcomes, outcomes),
        }


def _twin(form: str, updates: Mapping[str, Delta]) -> str | None:
    """The first form before this one that gives the same update, bit for bit."""
    earlier = list(updates)[: list(updates).index(form)]
    return next((other for other in earlier if _is_same(updates[other], updates[form])), None)


def _is_same(first: Delta, second: Delta) -> bool:
    return all(_are_equal(change, second.changes[name]) for name, change in first.changes.items())


def _are_equal(first: Change, second: Change) -> bool:
    if first is second:
        return True
    ours, theirs = list(first.tensors()), list(second.tensors())
    alike = first.is_low_rank == second.is_low_rank and len(ours) == len(theirs)
    return alike and all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
