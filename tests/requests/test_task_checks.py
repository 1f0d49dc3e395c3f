"""Duplicates, leakage, contradictions, splits and lengths."""

import json

import pytest

from perdure.errors import RequestError
from perdure.requests.examples import Example, Message, Task
from perdure.requests.task_checks import (
    LengthReport,
    Lengths,
    drop_leaks,
    length_report,
    merge_duplicates,
    note_contradictions,
    split_off,
)
from perdure.requests.tasks import read_task


def made(*texts, references=(), source="", plain=False):
    messages = [Message(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)]
    return Example(messages=messages, references=references, source=source, plain=plain)


def test_the_same_conversation_stands_once_with_all_its_references():
    rows = [made("a", "x"), made("a", "y"), made("a", "x", references=("x", "z"), source="t:3")]
    kept, notes = merge_duplicates(rows)
    assert kept == (made("a", "x", references=("x", "z")), made("a", "y"))
    assert notes == ["twice in train, merged: 1 (t:3)"]
    assert merge_duplicates([made("a", "x"), made("a", "x", plain=True)])[1] == []
    assert merge_duplicates([made("a", "b", "c", "x"), made("abc", "x"), made("ab", "x")])[1] == []


def test_what_is_held_out_is_taken_out_of_train():
    held = [made("a", "x", references=("x", "X")), made("c", "q")]
    rows = [
        made("a", "x"),
        made("a", "X"),
        made("a", "other"),
        made("b", "x"),
        made("c", "q", "d", "r"),
        made("a c", "q"),
    ]
    kept, notes = drop_leaks(rows, held, "taken out")
    assert kept == (rows[2], rows[3], rows[5])
    assert notes == ["taken out: 3 (a row, a row, a row)"]


def test_another_answer_to_the_same_prompt_is_noted():
    rows = [made("a", "x", source="t:1"), made("a", "y", source="t:2"), made("b", "x"), made("a", "y", source="t:4")]
    assert note_contradictions(rows) == ["the same prompt with another answer: 2 (t:1 and t:2, t:1 and t:4)"]
    assert note_contradictions([made("a", "x", references=("x", "y")), made("a", "y")]) == []


def test_a_split_is_decided_by_the_seed_and_shares_no_prompt():
    rows = [made(f"prompt {at // 2}", f"answer {at}") for at in range(200)]
    parts = split_off(rows, {"test": 0.2, "validation": 0.1}, seed=1)
    assert {part: len(found) for part, found in parts.items()} == {"train": 140, "test": 40, "validation": 20}
    prompts = [{row.prompt for row in found} for found in parts.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 100
    assert parts == split_off(rows, {"test": 0.2, "validation": 0.1}, seed=1)
    assert parts["test"] != split_off(rows, {"test": 0.2, "validation": 0.1}, seed=2)["test"]
    assert list(parts["train"]) == [row for row in rows if row in parts["train"]]


def test_a_split_does_not_depend_on_the_order_of_the_rows():
    rows = [made(f"prompt {at}", "x") for at in range(50)]
    first, second = (split_off(order, {"test": 0.2}, seed=0)["test"] for order in (rows, rows[::-1]))
    assert set(first) == set(second)


def test_a_prompt_with_too_many_rows_stays_in_train():
    rows = [made("one", f"answer {at}") for at in range(99)]
    assert split_off(rows, {"test": 0.2}, seed=0)["test"] == ()
    assert split_off([*rows, made("two", "x")], {"test": 0.2}, seed=0)["test"] == (made("two", "x"),)


def task_of(tmp_path, **parts):
    rows = {part: [{"question": asked, "answer": answer} for asked, answer in found] for part, found in parts.items()}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows))
    return read_task(path, validation=0.5 if "validation" not in parts else 0)


def test_a_task_with_parts_of_its_own_is_cleaned_and_says_so(tmp_path):
    task = task_of(
        tmp_path,
        train=[("a", "1"), ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")],
        validation=[("b", "2"), ("e", "5")],
        test=[("c", "3"), ("d", "other"), ("e", "5")],
    )
    assert [[row.prompt[0].content for row in part] for part in task.parts.values()] == [
        ["a", "d"],
        ["b"],
        ["c", "d", "e"],
    ]
    assert task.notes == (
        "twice in train, merged: 1 (t.json train[1])",
        "taken out of validation, also in test: 1 (t.json validation[1])",
        "taken out of train, also in validation or test: 2 (t.json train[2], t.json train[3])",
        "the same prompt with another answer: 1 (t.json train[4] and t.json test[1])",
    )


def test_a_task_too_small_to_split_says_so(tmp_path):
    task = task_of(tmp_path, train=[("a", "1")], test=[("b", "1")])
    assert (len(task.train), task.validation) == (1, ())
    assert task.notes == ("no validation was split off: there are too few prompts",)


def test_what_is_split_off_shares_no_prompt_with_a_part_that_was_given(tmp_path):
    path = tmp_path / "t.json"
    train = [{"question": f"prompt {at}", "answer": "x"} for at in range(10)]
    held = [{"question": f"prompt {at}", "answer": "x" if at < 3 else "y"} for at in range(6)]
    path.write_text(json.dumps({"train": train, "validation": held}))
    task = read_task(path, test=0.8)
    assert {row.prompt[0].content for row in task.test} == {f"prompt {at}" for at in range(6, 10)}
    assert {row.prompt[0].content for row in task.train} == {"prompt 3", "prompt 4", "prompt 5"}


def test_a_conversation_that_holds_what_was_split_off_is_taken_out(tmp_path):
    path = tmp_path / "t.jsonl"
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    long = [*short, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    rows = [{"messages": short}, {"messages": long}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"question": "q", "answer": "r"}]))
    found = [read_task(path, validation=0.4, seed=seed) for seed in range(20)]
    for task in found:
        leaked = task.validation[0].prompt[-1].content == "a"
        assert [len(row.messages) for row in task.train].count(4) == (
            not leaked and len(task.validation[0].messages) == 2
        )
        assert any(note.startswith("taken out of train") for note in task.notes) == leaked
    assert len({task.validation for task in found}) == 3


def test_nothing_is_left_to_train_on(tmp_path):
    with pytest.raises(RequestError, match="nothing is left to train on; taken out of train"):
        task_of(tmp_path, train=[("a", "1")], validation=[], test=[("a", "1")])


def test_lengths_by_hand():
    rows = tuple(made("x", "y" * length) for length in (*range(1, 20), 100))
    report = length_report(Task("t", "", rows, (), rows[:3]), lambda example: len(example.answer), limit=10)
    train = Lengths(n=20, shortest=1, median=10.5, p95=19, longest=100, total=290, over=10)
    assert report == LengthReport(10, {"train": train, "test": Lengths(3, 1, 2, 3, 3, 6, 0)})
    assert (report.n, report.total, report.over) == (23, 296, 10)
