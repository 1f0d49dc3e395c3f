"""The tasks of a stream, from real data, short enough for a CPU: one line of instruction, one of input.

The instructions are our own: the definitions that come with the data are 100 to 300 tokens long. Rows are drawn by
the seed; test rows are from the test part of each data set.
"""

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from perdure.requests.tasks import Example, Message, Task

Pairs = list[tuple[str, str]]

INTENTS = {
    "card_arrival": "arrival",
    "lost_or_stolen_card": "lost",
    "exchange_rate": "exchange",
    "top_up_failed": "top-up",
    "change_pin": "pin",
    "age_limit": "age",
}
TOPICS = {"World": "World", "Sports": "Sports", "Business": "Business", "Science or Technology": "Science"}

_INSTRUCTIONS = {
    "speaker": "Who says this, the user or the agent? Answer user or agent.",
    "relation": "Write the two words and their relation, such as: wheel PartOf car.",
    "topic": "What is this news about? Answer World, Sports, Business or Science.",
    "intent": "What is the customer's concern? Answer arrival, lost, exchange, top-up, pin or age.",
}
ORDERS = {
    "A": ("speaker", "intent", "relation", "topic"),
    "B": ("topic", "relation", "intent", "speaker"),
}


def stream(data: Path, order: str, *, rows: int, asked: int, seed: int) -> list[Task]:
    """The tasks of an order: `rows` to learn from and `asked` to be asked, each."""
    return [_task(data, name, rows, asked, seed) for name in ORDERS[order]]


def _task(data: Path, name: str, rows: int, asked: int, seed: int) -> Task:
    train, test = _READERS[name](data)
    drawn = random.Random(f"{name} {seed}")
    instruction = _INSTRUCTIONS[name]
    chosen = drawn.sample(_short(train), rows)
    held = random.Random(f"{name} test").sample(_short(test), asked)
    return Task(
        name=name,
        instruction=instruction,
        train=tuple(_example(instruction, *pair) for pair in chosen),
        validation=(),
        test=tuple(_example(instruction, *pair) for pair in held if pair not in chosen),
    )


def _short(pairs: Pairs) -> Pairs:
    return [pair for pair in dict.fromkeys(pairs) if len(pair[0]) <= 160]


def _example(instruction: str, asked: str, answer: str) -> Example:
    system = Message(role="system", content="Answer shortly.")  # some templates write a longer one where there is none
    asks = Message(role="user", content=f"{instruction}\n\n{asked}")
    messages = (system, asks, Message(role="assistant", content=answer))
    return Example(messages=messages, instruction=instruction, references=(answer,))


def _instances(file: str) -> Callable[[Path], tuple[Pairs, Pairs]]:
    def read(data: Path) -> tuple[Pairs, Pairs]:
        found = json.loads((data / "tasks" / file).read_text(encoding="utf-8"))
        return tuple(  # type: ignore[return-value]
            [(" ".join(row["input"].split()), row["output"][0].strip()) for row in found[part]]
            for part in ("train", "test")
        )

    return read


def _news(data: Path) -> tuple[Pairs, Pairs]:
    def read(part: str) -> Pairs:
        lines = (data / "text" / f"agnews_{part}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [
            (row["text"].partition("\nText:")[0].removeprefix("Title: ").strip(), TOPICS[row["label"]]) for row in rows
        ]

    return read("train"), read("test")


def _bank(data: Path) -> tuple[Pairs, Pairs]:
    def read(part: str) -> Pairs:
        with (data / "text" / f"banking77_{part}.csv").open(encoding="utf-8", newline="") as stream:
            rows: Sequence[dict[str, str]] = list(csv.DictReader(stream))
        return [(" ".join(row["text"].split()), INTENTS[row["category"]]) for row in rows if row["category"] in INTENTS]

    return read("train"), read("test")


_READERS: dict[str, Callable[[Path], tuple[Pairs, Pairs]]] = {
    "speaker": _instances("task1599_smcalflow_classification.json"),
    "relation": _instances("task1510_evalution_relation_extraction.json"),
    "topic": _news,
    "intent": _bank,
}
