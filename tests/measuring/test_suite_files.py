import json

import pytest

from perdure.errors import RequestError
from perdure.measuring.suites import Suite


def _write(folder, name, *rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_built_in_suite_is_whole():
    suite = Suite.built_in()
    assert len(suite.functions) >= 10 and all(len(pairs) >= 20 for pairs in suite.functions.values())
    assert len(suite.facts) >= 100 and all(len(fact.paraphrases) == 2 for fact in suite.facts)
    assert len(suite.instructions) >= 50 and len(suite.passages) >= 40
    assert all(fact.subject in text for fact in suite.facts for text in (fact.prompt, *fact.paraphrases))


def test_a_folder_is_a_suite_and_its_id_is_its_content(tmp_path):
    _write(tmp_path, "functions/twice.jsonl", {"input": "a", "output": "aa"}, {"input": "b", "output": "bb"})
    first = Suite.open(tmp_path)
    assert list(first.functions) == ["twice"] and first.facts == ()
    (tmp_path / "README.md").write_text("words")
    assert Suite.open(tmp_path).id == first.id
    _write(tmp_path, "functions/twice.jsonl", {"input": "a", "output": "aa"}, {"input": "b", "output": "bbb"})
    assert Suite.open(tmp_path).id != first.id


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("facts.jsonl", [{"subject": "x", "prompt": "x is"}], r"facts\.jsonl:1: answer"),
        ("facts.jsonl", [{"subject": "x", "prompt": "x is", "answer": " "}], "answer"),
        ("instructions.jsonl", [{"instruction": "go", "answers": []}], "answers"),
        ("instructions.jsonl", [{"instruction": "go", "answers": ["x"], "match": "like"}], "match"),
        ("functions/one.jsonl", [{"input": "a", "output": "b"}], "at least two"),
        ("functions/one.jsonl", [{"input": "a", "output": "b\nc"}], "output"),
        ("passages.jsonl", [{"text": "one"}], "at least two"),
    ],
)
def test_a_bad_line_is_named(tmp_path, name, rows, message):
    _write(tmp_path, name, *rows)
    with pytest.raises(RequestError, match=message):
        Suite.open(tmp_path)


def test_a_folder_without_a_suite_is_refused(tmp_path):
    with pytest.raises(RequestError, match="holds no suite"):
        Suite.open(tmp_path)
    with pytest.raises(RequestError, match="no folder"):
        Suite.open(tmp_path / "absent")
