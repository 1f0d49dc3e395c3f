"""Functions from files: every shape that people have, every bad row with its reason."""

import json

import pytest

from perdure.errors import RequestError
from perdure.requests.functions import Function, Pair, read_function

ROWS = [{"input": "cat", "output": "cats"}, {"input": "house", "output": "houses"}]
PAIRS = (Pair(input="cat", output="cats"), Pair(input="house", output="houses"))


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plural.json", json.dumps(ROWS)),
        ("plural.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("plural.csv", "input,output\ncat,cats\nhouse,houses\n"),
        ("plural.csv", b"\xef\xbb\xbfQuestion,Answer\r\ncat,cats\r\nhouse,houses\r\n"),
        ("plural.json", json.dumps({"Instances": [{"input": "cat", "output": ["cats", "kitties"]}, ROWS[1]]})),
        ("plural.json", json.dumps([{"instruction": "cat", "input": "", "output": "cats"}, ROWS[1]])),
        ("plural.jsonl", '{"text": " cat ", "label": "cats"}\n{"text": "house\\n", "label": "houses"}'),
    ],
)  # fmt: skip
def test_the_shapes_that_people_have(tmp_path, name, content):
    assert read_function(write(tmp_path, name, content)) == Function("plural", PAIRS)


def test_a_pair_counts_once_and_several_lines_become_one(tmp_path):
    rows = [*ROWS, ROWS[0], {"input": "two\n lines", "output": 7}]
    found = read_function(write(tmp_path, "a.json", json.dumps(rows)), name="other")
    assert (found.name, found.pairs[:2], len(found.pairs)) == ("other", PAIRS, 3)
    assert found.pairs[2] == Pair(input="two lines", output="7")


def test_the_digest_is_that_of_the_pairs(tmp_path):
    first = read_function(write(tmp_path, "a.json", json.dumps(ROWS)))
    assert first.digest == Function("b", PAIRS).digest
    assert first.digest != Function("a", PAIRS[::-1]).digest


def test_every_bad_row_is_told_with_its_reason(tmp_path):
    rows = [ROWS[0], 5, {"input": "x"}, {"input": "x", "output": {"a": 1}}, {"input": "x" * 3000, "output": "y"}]
    with pytest.raises(RequestError) as caught:
        read_function(write(tmp_path, "bad.jsonl", "\n".join(map(json.dumps, rows))))
    told = str(caught.value).splitlines()
    assert told[0] == "4 bad rows of 5:"
    for line, part in zip(
        told[1:],
        ("line 2: a int where an object", "line 3: no output", "line 4: its output is a dict", "line 5: input 'xxx"),
        strict=True,
    ):
        assert part in line


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "x", "understood; given .txt"),
        ("a.json", '"x"', "holds str"),
        ("a.json", '{"rows": []}', "under instances, train"),
        ("a.json", "[", "is no JSON"),
        ("a.json", "[]", "has no rows"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", '{"input": ' + "9" * 5000 + ', "output": "x"}', "line 1 is no JSON"),
        ("a.csv", b"\xff\xfe", "no UTF-8"),
        ("a.csv", 'input,output\na,b\n"c,d\n', "is broken CSV: unexpected end of data"),
        ("a.csv", "input,output\na," + "b" * 200_000, "is broken CSV: field larger"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, reason):
    with pytest.raises(RequestError, match=reason):
        read_function(write(tmp_path, name, content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_function(tmp_path / "none.json")
