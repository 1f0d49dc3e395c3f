"""Tasks for a pool: two that ask for the same in other words, and one of another kind."""

import json

from perdure.requests.tasks import Task
from tuning_tasks import WORDS, example

CAPITALS = "Write the word in capital letters."
AGAIN = "Write the word in capital letters, please."
HAIKU = "Compose a haiku about autumn leaves."
QUICK = {"max_steps": 2, "batch_size": 4, "rank": 4, "learning_rate": 1e-2, "averaging": {"form": "ratio"}}


def row(instruction, word, answer):
    return example(f"{instruction}\n\n{word}:", answer, instruction)


def task(name, instruction, change=str.upper):
    rows = tuple(row(instruction, word, change(word)) for word in WORDS)
    return Task(name=name, instruction=instruction, train=rows[:-4], validation=rows[-4:-2], test=rows[-2:])


FIRST, POEM, SECOND = task("capitals", CAPITALS), task("poem", HAIKU, str.title), task("again", AGAIN)


def write(path, instruction, change=str.upper):
    rows = [{"instruction": instruction, "input": word, "output": change(word)} for word in WORDS]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return path
