"""Tasks from files and folders: where parts stand, what is refused as a whole, what a task is called."""

import dataclasses
import json

import pytest

from perdure.errors import RequestError, SettingError
from perdure.requests.tasks import Task, read_task

ROWS = [{"input": f"word {at}", "output": f"words {at}"} for at in range(40)]
PAIRS = {(row["input"], row["output"]) for row in ROWS}


def lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pairs(examples):
    return [(example.messages[0].content, example.answer) for example in examples]


def sizes(task):
    return [len(part) for part in task.parts.values()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.jsonl", lines(ROWS)),
        ("words.ndjson", b"\xef\xbb\xbf" + lines(ROWS).replace("\n", "\r\n\r\n").encode()),
        ("words.json", json.dumps(ROWS)),
        ("words.JSON", json.dumps({"data": ROWS, "version": 1})),
        ("words.csv", "Input, OUTPUT\n" + "".join(f"{a},{b}\n" for a, b in sorted(PAIRS))),
    ],
)
def test_every_kind_of_file(tmp_path, name, content):
    task = read_task(write(tmp_path, name, content), test=0.2)
    assert task.name == "words"
    assert sizes(task) == [28, 4, 8]
    assert {pair for part in task.parts.values() for pair in pairs(part)} == PAIRS


def test_one_file_with_its_own_parts(tmp_path):
    content = json.dumps({"train": ROWS[:20], "dev": ROWS[20:25], "test": ROWS[25:], "licence": float("nan")})
    task = read_task(write(tmp_path, "words.json", content), name="plurals", validation=0.5, test=0.4)
    assert (task.name, sizes(task)) == ("plurals", [20, 5, 15])
    assert task.train[3].source == "words.json train[3]"


def test_validation_is_split_off_where_only_a_test_is_given(tmp_path):
    task = read_task(write(tmp_path, "words.json", json.dumps({"train": ROWS[:30], "test": ROWS[30:]})))
    assert sizes(task) == [27, 3, 10]


def test_a_folder_with_a_file_for_each_part(tmp_path):
    folder = tmp_path / "plurals"
    folder.mkdir()
    write(folder, "train.jsonl", lines(ROWS[:20]))
    write(folder, "Valid.json", json.dumps(ROWS[20:30]))
    write(folder, "test.csv", "input,output\nword 39,words 39\n")
    write(folder, "extra.csv", "nothing,useful\n")
    write(folder, "README.md", "x")
    task = read_task(folder)
    assert (task.name, sizes(task)) == ("plurals", [20, 10, 1])
    assert task.notes == ("files or splits not read: 1 (extra.csv)",)
    assert {part[0].source for part in task.parts.values()} == {"train.jsonl:1", "Valid.json[0]", "test.csv:2"}


def instances(*rows):
    return [{"id": "x", "input": a, "output": b} for a, b in rows]


def test_super_natural_instructions(tmp_path):
    task_file = {
        "Definition": ["Name the capital."],
        "URL": [float("nan")],
        "Positive Examples": instances(("Peru", "Lima")),
        "Instances": instances(("Chile", ["Santiago", "Santiago de Chile"]), ("Egypt", ["Cairo"])),
    }
    task = read_task(write(tmp_path, "capitals.json", json.dumps(task_file)), validation=0)
    assert task.instruction == "Name the capital." == task.train[0].instruction
    assert pairs(task.train)[0] == ("Name the capital.\n\nChile", "Santiago")
    assert task.train[0].references == ("Santiago", "Santiago de Chile")
    assert (len(task.train), task.notes) == (2, ("keys not read: 1 (id)",))
    parted = task_file | {"train": instances(("Chile", ["S"])), "test": instances(("Egypt", ["Cairo"]))}
    del parted["Instances"]
    task = read_task(write(tmp_path, "capitals.json", json.dumps(parted)), validation=0)
    assert sizes(task) == [1, 0, 1]


def test_a_conversation_may_name_its_work(tmp_path):
    turns = [{"role": "user", "content": "May I return a lamp?"}, {"role": "assistant", "content": "Yes."}]
    spoken = [{"from": "human", "value": "And a chair?"}, {"from": "gpt", "value": "No."}]
    rows = [{"messages": turns}, {"conversations": spoken}]
    named = [row | {"instruction": "Say whether goods can be returned."} for row in rows]
    task = read_task(write(tmp_path, "a.jsonl", lines(named)))
    assert task.instruction == "Say whether goods can be returned."
    assert [len(example.messages) for example in task.train] == [2, 2]
    assert not any("not read" in note for note in task.notes)
    with pytest.raises(RequestError, match="instruction"):
        read_task(write(tmp_path, "b.jsonl", lines([rows[0] | {"instruction": 3}])))


def test_the_instruction_of_a_task_is_the_one_of_all_rows(tmp_path):
    rows = [{"instruction": "Add.", "input": str(at), "output": "x"} for at in range(3)]
    assert read_task(write(tmp_path, "a.jsonl", lines(rows))).instruction == "Add."
    other = rows[0] | {"instruction": "Subtract."}
    assert read_task(write(tmp_path, "a.jsonl", lines([*rows, other]))).instruction == ""


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", "", "there is no row to take"),
        ("a.json", " ", "there is no row to take"),
        ("a.csv", "", "there is no row to take"),
        ("a.json", "[]", "there is no row to take"),
        ("a.json", "[", "broken JSON"),
        ("a.json", "3", "must be a list of objects, got a number"),
        ("a.json", "{}", "the lists train, validation and test, or Instances, or data"),
        ("a.json", '{"test": []}', "the lists train"),
        ("a.json", '{"train": 3}', "must be a list of objects, got a number"),
        ("a.json", '{"train": [], "Instances": []}', "the lists train"),
        ("a.json", '{"train": [], "dev": [], "val": []}', "has val and dev for one part"),
        ("a.json", '{"train": [], "train": []}', "'train' stands more than once"),
        ("a.json", '{"Definition": [3], "Instances": []}', "has a Definition that is no text"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.csv", "one,two\nx,y\n", "the header has one, two; two columns such as"),
        ("a.csv", "text;label\nx;y\n", "must separate its columns with commas"),
        ("a.csv", "text,label,Text\nx,y,z\n", "names a column more than once"),
        ("a.txt", "x", "unknown extension '.txt'"),
        ("a.pkl", "x", "can run code"),
        ("a.jsonl", b"\xff\xfex\0", "is UTF-16"),
    ],
)
def test_files_that_are_refused_as_a_whole(tmp_path, name, content, reason):
    with pytest.raises(RequestError, match=reason):
        read_task(write(tmp_path, name, content))


def test_bad_rows_of_all_files_are_told_at_once_and_can_be_left_out(tmp_path):
    write(tmp_path, "train.jsonl", lines([*ROWS, {"input": "x"}]) + "{\n")
    write(tmp_path, "test.csv", "input,output\nx,\nz,w\nonly one\n")
    with pytest.raises(RequestError, match="skip_bad=True") as caught:
        read_task(tmp_path)
    places = [str(problem.place) for problem in caught.value.problems]
    assert places == ["train.jsonl:41", "train.jsonl:42", "test.csv:2", "test.csv:4"]
    task = read_task(tmp_path, skip_bad=True)
    assert sizes(task) == [36, 4, 1]
    assert task.notes[0].startswith("bad rows, left out: 4 (train.jsonl:41: ") and task.notes[0].endswith(
        " and 1 more)"
    )


def test_nothing_but_bad_rows(tmp_path):
    with pytest.raises(RequestError, match="No row can be taken"):
        read_task(write(tmp_path, "a.jsonl", "{}\n[]\n"), skip_bad=True)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "no part called train, but nothing that can be read"),
        (["test.csv", "all.csv"], "no part called train, but all.csv, test.csv"),
        (["train.csv", "train.jsonl"], "has train.csv and train.jsonl for one part"),
        (["train.csv", "dev.csv", "val.csv"], "has dev.csv and val.csv for one part"),
    ],
)
def test_folders_that_are_refused(tmp_path, files, reason):
    for name in files:
        write(tmp_path, name, "input,output\nx,y\n")
    with pytest.raises(RequestError, match=reason):
        read_task(tmp_path)


def test_a_file_with_parts_in_a_folder_of_parts(tmp_path):
    write(tmp_path, "train.json", json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(RequestError, match="has parts of its own"):
        read_task(tmp_path)


@pytest.mark.parametrize("path", ["none.jsonl", "no/where/at.all", "a\0b", "data/none.jsonl"])
def test_what_is_not_there(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"cannot be read|is not the name of a file"):
        read_task(path)


@pytest.mark.parametrize("shares", [(1, 0), (-0.1, 0), (0.5, 0.5), (float("nan"), 0), (0, 1.5)])
def test_shares_that_leave_nothing(tmp_path, shares):
    with pytest.raises(SettingError, match="less than 1"):
        read_task(tmp_path, validation=shares[0], test=shares[1])


def test_the_digest_is_of_everything_but_sources_and_notes(tmp_path):
    first = read_task(write(tmp_path, "words.jsonl", lines(ROWS)))
    moved = read_task(write(tmp_path, "words.json", json.dumps(ROWS)))
    assert first.train[0].source != moved.train[0].source and first.digest == moved.digest
    assert first.digest == dataclasses.replace(first, notes=("other",)).digest
    for change in (
        {"name": "other"},
        {"instruction": "other"},
        {"validation": ()},
        {"train": first.train[::-1]},
        {"train": tuple(example.model_copy(update={"plain": True}) for example in first.train)},
        {"train": tuple(example.model_copy(update={"references": ("x",)}) for example in first.train)},
    ):
        assert dataclasses.replace(first, **change).digest != first.digest


def test_the_digest_follows_the_bytes_of_images_and_not_their_place(tmp_path):
    digests = []
    for folder, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        picture = write(tmp_path / folder, "x.png", data)
        row = {"question": "What?", "answer": "A cat.", "image": "x.png"}
        task = read_task(write(tmp_path / folder, "t.jsonl", lines([row])), validation=0)
        digests.append(task.digest)
    assert digests[0] == digests[1] != digests[2]
    gone = Task("t", "", task.train, (), ())
    picture.unlink()
    with pytest.raises(RequestError, match=r"x\.png cannot be read"):
        _ = gone.digest
