"""Rows of every shape become examples; every fault of a row is named with its field."""

import json

import pytest

from perdure.errors import RequestError
from perdure.requests.examples import Example, Message, misplaced
from perdure.requests.task_rows import IMAGES_LIMIT, PARTS_LIMIT, TEXT_LIMIT
from perdure.requests.tasks import read_task


def said(*turns):
    return tuple(Message(role={"s": "system", "u": "user", "a": "assistant"}[who], content=text) for who, text in turns)


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def example(folder, row):
    (found,) = read_task(write(folder, row), validation=0).train
    return found


def problems(folder, *rows):
    with pytest.raises(RequestError) as caught:
        read_task(write(folder, *rows), validation=0)
    return [str(problem) for problem in caught.value.problems]


TURNS = [("s", "Be kind."), ("u", "Hi"), ("a", "Hello"), ("u", "Bye"), ("a", "So long")]
ROLE = {"s": "system", "u": "user", "a": "assistant"}
SPEAKER = {"s": "system", "u": "human", "a": "gpt"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [{"role": ROLE[who], "content": text} for who, text in TURNS]}, said(*TURNS)),
        ({"conversations": [{"from": SPEAKER[who], "value": text} for who, text in TURNS]}, said(*TURNS)),
        ({"conversations": [{"role": ROLE[who], "content": text} for who, text in TURNS]}, said(*TURNS)),
        ({"messages": [{"role": "system", "content": " "}, {"role": "user", "content": [{"type": "text", "text": "a"},
         {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "c"}]}, said(("u", "ab"), ("a", "c"))),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, said(("u", "Add.\n\n1 2"), ("a", "3"))),
        ({"instruction": "Add.", "input": "", "output": "3"}, said(("u", "Add."), ("a", "3"))),
        ({"instruction": "Add.", "input": None, "output": "3"}, said(("u", "Add."), ("a", "3"))),
        ({"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
         said(("u", "Hi"), ("a", "Ho"))),
        ({"question": "Why?", "answer": " So. "}, said(("u", "Why?"), ("a", " So. "))),
        ({"input": "cat", "output": "cats"}, said(("u", "cat"), ("a", "cats"))),
        ({"text": "lost card", "label": "card", "id": 7}, said(("u", "lost card"), ("a", "card"))),
        ({"text": "lost card", "category": "card"}, said(("u", "lost card"), ("a", "card"))),
        ({"definition": "Name it.", "input": "x", "output": ["y"]}, said(("u", "Name it.\n\nx"), ("a", "y"))),
    ],
)  # fmt: skip
def test_every_shape(tmp_path, row, messages):
    found = example(tmp_path, row)
    assert (found.messages, found.plain, found.source) == (messages, False, "rows.jsonl:1")
    assert found.references == (messages[-1].content,) == (found.answer,)


def test_prompt_and_completion_stand_one_after_the_other_as_they_are(tmp_path):
    found = example(tmp_path, {"prompt": "The capital is", "completion": " Paris"})
    assert found.plain and found.messages == said(("u", "The capital is"), ("a", " Paris"))


def test_the_instruction_is_that_of_the_row(tmp_path):
    assert example(tmp_path, {"instruction": "Add.", "input": "1 2", "output": "3"}).instruction == "Add."
    assert example(tmp_path, {"definition": "Name it.", "input": "x", "output": "y"}).instruction == "Name it."
    assert example(tmp_path, {"question": "Why?", "answer": "So"}).instruction == ""


def test_every_right_answer_is_a_reference_once(tmp_path):
    found = example(tmp_path, {"question": "Who?", "answer": ["Ann", "Ann B.", "Ann"]})
    assert (found.answer, found.references) == ("Ann", ("Ann", "Ann B."))


def chat(*roles, **extra):
    return {"messages": [{"role": role, "content": "x"} for role in roles]} | extra


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (5, "5: must be an object, got a number"),
        ({"x": 1, "y": 2}, "has x, y; an example has one of: messages; conversations; definition"),
        ({"messages": "hello"}, "messages 'hello': must be a list of messages"),
        ({"messages": []}, "messages"),
        (chat("user"), "messages[0].role 'user': a message of the user and an answer"),
        (chat("assistant", "user"), "messages[0].role 'assistant': is the assistant's where the user's is due"),
        (chat("user", "user", "assistant"), "messages[1].role 'user': is the user's where the assistant's is due"),
        (chat("user", "assistant", "user"), "messages[2].role 'user': is the user's; the last message must be"),
        (chat("user", "system", "assistant"), "messages[1].role 'system': a system message may only stand first"),
        (chat("user", "tool", "assistant"), "messages[1].role 'tool': unknown role. Known: system, user, assistant"),
        (chat("user", 7), "messages[1].role 7: unknown role"),
        (chat("user", ["user"]), "messages[1].role a list of 1: unknown role"),
        ({"messages": ["x", "y"]}, "messages[0] 'x': must be an object with role and content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: is missing"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [1]}]},
         "messages[1].tool_calls a list of 1: calls of tools"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "bing", "value": "y"}]},
         "conversations[1].from 'bing': unknown role"),
        ({"question": "Why?", "answer": "  "}, "answer '  ': the assistant's text is empty"),
        ({"question": "Why?", "answer": 4}, "answer 4: must be text in quotes, got a number"),
        ({"question": "Why?", "answer": []}, "answer a list of 0: is an empty list"),
        ({"question": "Why?", "answer": ["a", 4, ""]}, "answer[1] 4: must be text"),
        ({"question": "Why?", "answer": float("nan")}, "answer: NaN is not a value"),
        ({"question": "Why?", "answer": {"text": "x"}}, "answer an object of 1: must be text"),
        ({"question": "\ud800", "answer": "x"}, "question '\\ud800': holds U+D800, half of a surrogate pair"),
        ({"question": "", "answer": "x"}, "question '': the user's text is empty"),
        ({"text": "x", "label": 1}, "label 1: must be text in quotes, got a number"),
        ({"instruction": ["x"], "output": "y"}, "instruction a list of 1: must be text"),
        ({"instruction": "", "input": " ", "output": "y"}, "instruction '': the user's text is empty"),
        ({"prompt": [{"role": "user", "content": "x"}], "completion": "y"}, "completion 'y': must be a list"),
        ({"prompt": 1, "completion": "y"}, "prompt 1: must be text"),
        ({"question": "x" * TEXT_LIMIT, "answer": "y"}, f"{TEXT_LIMIT + 1} bytes': the row's texts are too long"),
        ({"question": "é" * (TEXT_LIMIT // 2), "answer": "y"}, "too long"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 'must be {"type": "text"'),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 'must be {"type": "text"'),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "content[0].text 3: must be text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * (PARTS_LIMIT + 1)}]}, "parts are"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used(tmp_path, row, reason):
    found = problems(tmp_path, row)
    assert any(reason in problem for problem in found), found
    assert all(problem.startswith("rows.jsonl:1: ") for problem in found)


def test_every_fault_of_every_row_is_told_at_once(tmp_path):
    bad = {"messages": [{"role": "usr", "content": 3}, {"role": "assistant", "content": ""}]}
    found = problems(tmp_path, bad, {"question": "Why?", "answer": "So"}, {"question": 1, "answer": 2})
    assert [problem.split(":")[1] for problem in found] == ["1", "1", "1", "3", "3"]


def test_a_hostile_row_is_told_in_few_words(tmp_path):
    found = problems(tmp_path, {"messages": [{"role": "x" * 500, "content": ""}] * 9999}, {"\x1b[2J" * 99: 1})
    assert len(found) <= 21 and max(map(len, found)) < 400
    assert not any("\x1b" in problem for problem in found)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def shown(*content, **extra):
    messages = [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "A cat."}]
    return {"messages": messages} | extra


IMAGE, TEXT = {"type": "image"}, {"type": "text", "text": "What?"}


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (shown({"type": "image", "image": "a.png"}, TEXT), ["a.png"]),
        (shown({"type": "image", "path": "sub/b.png"}), ["sub/b.png"]),
        (shown(IMAGE, TEXT, IMAGE, images=["sub/b.png", "a.png"]), ["sub/b.png", "a.png"]),
        ({"question": "What?", "answer": "A cat.", "image": "a.png"}, ["a.png"]),
        ({"question": "", "answer": "A cat.", "images": ["a.png", "./sub/b.png"]}, ["a.png", "sub/b.png"]),
        ({"question": "What?", "answer": "A cat.", "image": None}, []),
    ],
)
def test_images_are_found_beside_the_data(pictures, row, names):
    user, assistant = example(pictures, row).messages
    assert user.images == tuple(str(pictures.resolve() / name) for name in names)
    assert assistant.images == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "without .. or a leading slash"),
        ("sub/../../secret.png", "without .."),
        ("/etc/passwd", "leading slash"),
        ("..\\secret.png", "without .."),
        ("link.png", "leads out of the folder"),
        ("http://x.org/a.png", "images are not fetched"),
        ("file:///etc/passwd", "images are not fetched"),
        ("data:image/png;base64,AAAA", "images are not fetched"),
        ("//server/a.png", "images are not fetched"),
        ("none.png", "is no regular file"),
        ("sub", "is no regular file"),
        ("a\0.png", "without .."),
        ("x" * 5000, "cannot be looked up"),
        (7, "must be the name of an image file, got a number"),
        ({"bytes": None, "path": "/etc/passwd"}, "got an object"),
    ],
)
def test_images_that_are_refused(pictures, name, reason):
    for row in (shown({"type": "image", "image": name}, TEXT), shown(IMAGE, images=[name])):
        (found,) = problems(pictures, row)
        assert reason in found


def test_images_that_do_not_fit_their_messages(pictures):
    assert "2 parts of the messages stand for images" in problems(pictures, shown(IMAGE, IMAGE, images=["a.png"]))[0]
    assert "1 parts" in problems(pictures, shown(IMAGE))[0]
    row = {"question": "?", "answer": "x", "images": ["a.png"] * (IMAGES_LIMIT + 1)}
    assert f"at most {IMAGES_LIMIT}" in problems(pictures, row)[0]
    assert "at most" in problems(pictures, shown(*[IMAGE] * (IMAGES_LIMIT + 1)))[0]
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [IMAGE]}]}
    assert "only the user shows images" in problems(pictures, row)[0]


@pytest.mark.parametrize("roles", [["user", "assistant"], ["system", "user", "assistant", "user", "assistant"]])
def test_roles_in_order(roles):
    assert misplaced(roles) is None


@pytest.mark.parametrize(
    ("messages", "references"),
    [
        (said(("a", "x")), ()),
        (said(("u", "x"), ("a", "")), ()),
        (said(("u", " "), ("a", "x")), ()),
        ((), ()),
        (said(("u", "x"), ("a", "y")), ("z",)),
    ],
)
def test_an_example_made_by_hand_is_checked_too(messages, references):
    with pytest.raises(ValueError, match=r"message 0|message 1|first reference"):
        Example(messages=messages, references=references)
