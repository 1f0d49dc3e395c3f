"""Shapes of rows that examples are read from: conversations, instructions, prompts, questions, labelled texts.

A shape is recognised by the keys that a row has. A new shape is one function and one line in `TASK_SHAPES`; where a
row fits several, the first counts. What a function does not understand it passes on, and `task_rows` refuses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.requests.drafts import MisshapenError, Raw
from perdure.requests.wording import name_kind

DEFINITION = "definition"
_SPEAKERS = {"human": "user", "gpt": "assistant"}
_CALLS = ("tool_calls", "function_call")


@dataclass(frozen=True)
class Turn:
    """A message before it is checked.

    Attributes:
        role: Who speaks.
        content: Text, or a list of parts.
        field: Where the content stands in the row, such as `messages[2].content`.
        role_field: Where the role stands; empty where the shape says who speaks.
    """

    role: object
    content: object
    field: str
    role_field: str = ""


@dataclass(frozen=True)
class ExampleDraft:
    """An example before it is checked.

    Attributes:
        turns: The conversation; the last one is the answer.
        plain: Whether the texts stand one after the other, without a chat template.
        instruction: Which work is asked; empty where the row does not say.
        others: Further right answers.
    """

    turns: tuple[Turn, ...]
    plain: bool = False
    instruction: str = ""
    others: tuple[object, ...] = ()


@dataclass(frozen=True)
class TaskShape:
    """One way to write an example down.

    Attributes:
        name: For messages: the keys that it is recognised by.
        needs: A row fits that has one key of each of these groups.
        read: The draft in a row.
        reads: The other keys that it looks at.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Raw], ExampleDraft]
    reads: tuple[str, ...] = ()

    def fits(self, row: Raw) -> bool:
        """Whether a row is of this shape."""
        return all(any(key in row for key in group) for group in self.needs)

    def unread(self, row: Raw) -> list[str]:
        """The keys of `row` that this shape does not look at."""
        read = {*self.reads, *(key for group in self.needs for key in group), *IMAGE_KEYS}
        return [key for key in row if key not in read]


IMAGE_KEYS = ("images", "image")


def task_shape_of(row: Raw) -> TaskShape | None:
    """The first shape that fits `row`; None when there is none."""
    return next((shape for shape in TASK_SHAPES if shape.fits(row)), None)


def _messages(row: Raw) -> ExampleDraft:
    return ExampleDraft(_turns(row["messages"], "messages", "role", "content"), instruction=_named(row))


def _conversations(row: Raw) -> ExampleDraft:
    """ShareGPT: who speaks is under `from`, or `role` as elsewhere, and what is said under `value`."""
    given = row["conversations"]
    first = given[0] if isinstance(given, list) and given else None
    named = isinstance(first, Mapping) and "role" in first
    turns = _turns(given, "conversations", *(("role", "content") if named else ("from", "value")))
    return ExampleDraft(turns, instruction=_named(row))


def _named(row: Raw) -> str:
    """Which work a conversation is about, where the row says it beside what is spoken."""
    return _joined(row, "instruction")


def _instruction(row: Raw) -> ExampleDraft:
    """Alpaca: what is asked, what it is asked of, and the output."""
    return _paired(_joined(row, "instruction", "input"), "instruction", row, "output", row["instruction"] or "")


def _definition(row: Raw) -> ExampleDraft:
    """An instance of Super-NaturalInstructions with the definition of its task."""
    return _paired(_joined(row, DEFINITION, "input"), "input", row, "output", row[DEFINITION])


def _prompt(row: Raw) -> ExampleDraft:
    """Prompt and completion: both text to go on with, or both lists of messages."""
    prompt, completion = row["prompt"], row["completion"]
    if not isinstance(prompt, list) and not isinstance(completion, list):
        asked = Turn("user", prompt, "prompt")
        return ExampleDraft((asked, Turn("assistant", completion, "completion")), plain=True)
    return ExampleDraft(tuple(turn for key in ("prompt", "completion") for turn in _turns(row[key], key)))


def _pair(asked: str, *answers: str) -> Callable[[Raw], ExampleDraft]:
    def read(row: Raw) -> ExampleDraft:
        return _paired(row[asked], asked, row, next(key for key in answers if key in row))

    return read


def _paired(asked: object, field: str, row: Raw, answer: str, instruction: str = "") -> ExampleDraft:
    """One question and its answer; where a list of answers is given, every one is right."""
    given, others = row[answer], ()
    if isinstance(given, list | tuple):
        if not given:
            raise MisshapenError(answer, given, "is an empty list; one right answer is needed")
        given, others = given[0], tuple(given[1:])
    turns = (Turn("user", asked, field), Turn("assistant", given, answer))
    return ExampleDraft(turns, instruction=instruction, others=others)


def _joined(row: Raw, *keys: str) -> str:
    """The texts under these keys with blank lines between; what is blank or null is left out."""
    found = []
    for key in keys:
        value = row.get(key)
        if not isinstance(value, str | None):
            raise MisshapenError(key, value, f"must be text in quotes, got {name_kind(value)}")
        if value and value.strip():
            found.append(value)
    return "\n\n".join(found)


def _turns(given: Any, field: str, role: str = "role", content: str = "content") -> tuple[Turn, ...]:
    if not isinstance(given, list):
        raise MisshapenError(field, given, f"must be a list of messages, got {name_kind(given)}")
    return tuple(_turn(message, f"{field}[{at}]", role, content) for at, message in enumerate(given))


def _turn(message: object, field: str, role: str, content: str) -> Turn:
    if not isinstance(message, Mapping):
        raise MisshapenError(field, message, f"must be an object with {role} and {content}, got {name_kind(message)}")
    for key in _CALLS:
        if message.get(key):
            raise MisshapenError(f"{field}.{key}", message[key], "calls of tools are not learnt; leave this row out")
    for key in (role, content):
        if key not in message:
            raise MisshapenError(f"{field}.{key}", None, "is missing")
    speaker = message[role]
    if role == "from" and isinstance(speaker, str):
        speaker = _SPEAKERS.get(speaker, speaker)
    return Turn(speaker, message[content], f"{field}.{content}", f"{field}.{role}")


TASK_SHAPES: tuple[TaskShape, ...] = (
    TaskShape("messages", (("messages",),), _messages, ("instruction",)),
    TaskShape("conversations", (("conversations",),), _conversations, ("instruction",)),
    TaskShape("definition, input, output", ((DEFINITION,), ("input",), ("output",)), _definition),
    TaskShape("instruction, (input,) output", (("instruction",), ("output",)), _instruction, ("input",)),
    TaskShape("prompt, completion", (("prompt",), ("completion",)), _prompt),
    TaskShape("question, answer", (("question",), ("answer",)), _pair("question", "answer")),
    TaskShape("input, output", (("input",), ("output",)), _pair("input", "output")),
    TaskShape("text, label (or category)", (("text",), ("label", "category")), _pair("text", "label", "category")),
)
