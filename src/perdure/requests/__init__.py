"""What people ask for: facts to teach and tasks to learn, read, checked, merged, refused with reasons."""

from perdure.requests.checks import check_facts
from perdure.requests.examples import Example, Message, Task
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
from perdure.requests.task_checks import LengthReport, Lengths, length_report
from perdure.requests.tasks import read_task

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
    "Example",
    "Fact",
    "FactFile",
    "Hop",
    "LengthReport",
    "Lengths",
    "Merge",
    "Message",
    "Neighbour",
    "Place",
    "Problem",
    "Task",
    "check_facts",
    "fact_schema",
    "length_report",
    "read_facts",
    "read_task",
]
