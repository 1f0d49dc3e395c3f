"""What a model can do, before and after: outcomes of one model, and reports that compare two."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from perdure.measuring.compare import (
    build_edit_measures,
    build_harness,
    build_language,
    build_retention,
)
from perdure.measuring.concept_measures import build_concepts
from perdure.measuring.concepts import ConceptMeasures
from perdure.measuring.outcomes import Answer, EditAnswer, Outcomes, Passage, RippleAnswer, TaskHits
from perdure.measuring.removals import build_removal, questions_about
from perdure.measuring.report import Report
from perdure.measuring.ripple_measures import build_ripple
from perdure.measuring.ripple_questions import RippleQuestions, choose_questions
from perdure.measuring.suites import Suite

if TYPE_CHECKING:
    from perdure.measuring.concept_answers import ConceptSettings, compare_probings, probe_encoder
    from perdure.measuring.edits import measure_edits, references_from
    from perdure.measuring.harness import measure_harness
    from perdure.measuring.language import measure_language
    from perdure.measuring.retention import measure_retention
    from perdure.measuring.ripple import measure_ripple, ripple_references
    from perdure.measuring.spectrum import measure_matrices

_RUNS_MODELS = {  # read when asked for: a page that shows a report needs no torch
    "ConceptSettings": "concept_answers",
    "compare_probings": "concept_answers",
    "measure_edits": "edits",
    "measure_harness": "harness",
    "measure_language": "language",
    "measure_matrices": "spectrum",
    "measure_retention": "retention",
    "measure_ripple": "ripple",
    "probe_encoder": "concept_answers",
    "references_from": "edits",
    "ripple_references": "ripple",
}

__all__ = [
    "Answer",
    "ConceptMeasures",
    "ConceptSettings",
    "EditAnswer",
    "Outcomes",
    "Passage",
    "Report",
    "RippleAnswer",
    "RippleQuestions",
    "Suite",
    "TaskHits",
    "build_concepts",
    "build_edit_measures",
    "build_harness",
    "build_language",
    "build_removal",
    "build_retention",
    "build_ripple",
    "choose_questions",
    "compare_probings",
    "measure_edits",
    "measure_harness",
    "measure_language",
    "measure_matrices",
    "measure_retention",
    "measure_ripple",
    "probe_encoder",
    "questions_about",
    "references_from",
    "ripple_references",
]


def __getattr__(name: str) -> Any:
    if name not in _RUNS_MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_RUNS_MODELS[name]}"), name)
