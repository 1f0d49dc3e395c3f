"""What people ask for: facts to teach, read from files or lists, checked, merged, refused with reasons."""

from perdure.requests.checks import check_facts
from perdure.requests.facts import SUBJECT_LIMIT, TARGET_LIMIT, Fact, fact_schema
from perdure.requests.problems import FactFile, Merge, Place, Problem
from perdure.requests.questions import (
    ALIASES_LIMIT,
    HOPS_LIMIT,
    NEEDS_LIMIT,
    PARAPHRASES_LIMIT,
    PROMPT_LIMIT,
    QUESTIONS_LIMIT,
    Consequence,
    Hop,
    Neighbour,
)
from perdure.requests.readers import FILE_LIMIT, ROW_LIMIT, read_facts

__all__ = [
    "ALIASES_LIMIT",
    "FILE_LIMIT",
    "HOPS_LIMIT",
    "NEEDS_LIMIT",
    "PARAPHRASES_LIMIT",
    "PROMPT_LIMIT",
    "QUESTIONS_LIMIT",
    "ROW_LIMIT",
    "SUBJECT_LIMIT",
    "TARGET_LIMIT",
    "Consequence",
    "Fact",
    "FactFile",
    "Hop",
    "Merge",
    "Neighbour",
    "Place",
    "Problem",
    "check_facts",
    "fact_schema",
    "read_facts",
]
