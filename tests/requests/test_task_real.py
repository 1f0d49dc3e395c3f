"""Real data, where its folder is: `PERDURE_DATA`, or `shared/data` beside this checkout."""

import os
from pathlib import Path

import pytest

from perdure.errors import RequestError
from perdure.requests.tasks import read_task

DATA = Path(os.environ.get("PERDURE_DATA") or Path(__file__).parents[3] / "shared/data")
pytestmark = pytest.mark.skipif(not (DATA / "tasks").is_dir(), reason="no folder of real data; name it in PERDURE_DATA")

EMPTY_ANSWERS = "task497_extract_all_numbers_from_list_in_order"


def examples(task):
    return sum(map(len, task.parts.values()))


def test_tasks_of_super_natural_instructions():
    files = sorted((DATA / "tasks").glob("*.json"))
    assert len(files) == 11
    for path in files:
        task = read_task(path, skip_bad=path.stem == EMPTY_ANSWERS)
        assert task.instruction
        assert examples(task) > 170
        assert len(task.validation) == round(0.1 * (len(task.train) + len(task.validation)))
        assert {row.messages[0].content.startswith(task.instruction) for row in task.train} == {True}


def test_answers_that_are_empty_in_the_source_are_named():
    with pytest.raises(RequestError) as caught:
        read_task(DATA / "tasks" / f"{EMPTY_ANSWERS}.json")
    assert len(caught.value.problems) == 7
    assert {problem.reason for problem in caught.value.problems} == {"the assistant's text is empty"}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sst2_train.jsonl", 2000),
        ("sst2_test.jsonl", 872),
        ("agnews_train.jsonl", 4000),
        ("agnews_test.jsonl", 2000),
        ("banking77_train.csv", 10003),
        ("banking77_test.csv", 3080),
    ],
)
def test_texts_with_labels(name, rows):
    task = read_task(DATA / "text" / name, test=0.1)
    assert examples(task) == rows
    prompts = [{row.prompt for row in part} for part in task.parts.values()]
    assert len(set.union(*prompts)) == sum(map(len, prompts))
