"""What a model is tuned on: messages, examples that end with the assistant's answer, and tasks of three parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from perdure.content import digest_file, digest_json
from perdure.errors import RequestError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role = Field(description="Who speaks")
    content: str = Field(description="The text, as it stands in the file")
    images: tuple[str, ...] = Field((), description="Absolute paths of image files, in order; empty for text")


class Example(BaseModel):
    """A conversation whose last message is what the model shall write; all of the assistant's are trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...] = Field(description="A system message or none, then user and assistant in turn")
    plain: bool = Field(False, description="The texts stand one after the other, without a chat template")
    instruction: str = Field("", description="Which work is asked, for grouping; empty where the row does not say")
    references: tuple[str, ...] = Field(
        (), validate_default=True, description="Every right answer, that of the last message first"
    )
    source: str = Field("", description="Where it was read, such as returns.jsonl:12; no part of any digest")

    @field_validator("messages")
    @classmethod
    def _in_order(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if found := misplaced([message.role for message in messages]):
            raise ValueError(f"message {found[0]}: {found[1]}")
        for at, message in enumerate(messages):
            if message.role != "system" and not message.content.strip() and not message.images:
                raise ValueError(f"message {at}: the {message.role}'s text is empty")
        return messages

    @field_validator("references")
    @classmethod
    def _answer_first(cls, references: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        messages = info.data.get("messages")
        if not messages:
            return references
        if references and references[0] != messages[-1].content:
            raise ValueError("the first reference must be the content of the last message")
        return references or (messages[-1].content,)

    @property
    def answer(self) -> str:
        """What the last message says."""
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last message."""
        return self.messages[:-1]


def misplaced(roles: Sequence[str]) -> tuple[int, str] | None:
    """Which message breaks the order of roles first, and why; None when the order is right."""
    start = 1 if roles and roles[0] == "system" else 0
    for at, role in enumerate(roles[start:], start):
        due = ROLES[1 + (at - start) % 2]
        if role == "system":
            return at, "a system message may only stand first"
        if role != due:
            return at, f"is the {role}'s where the {due}'s is due; user and assistant take turns, the user first"
    if len(roles) - start < 2:
        return max(len(roles) - 1, 0), "a message of the user and an answer of the assistant are needed"
    if roles[-1] != "assistant":
        return len(roles) - 1, "is the user's; the last message must be the assistant's"
    return None


@dataclass(frozen=True)
class Task:
    """Work that a model shall learn, by examples.

    Attributes:
        name: What it is called.
        instruction: That of all examples, or empty where they differ.
        train: What is learnt.
        validation: What settings are chosen by.
        test: What is measured at the end; shares no prompt and answer with the others.
        notes: What was left out, merged or contradictory, in words.
    """

    name: str
    instruction: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The examples by part: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def digest(self) -> str:
        """The sha256 (hex) of everything but sources and notes; images count by their bytes, not by their paths.

        Raises:
            RequestError: An image cannot be read any more.
        """
        parts = {part: digest_json([_told(example) for example in found]) for part, found in self.parts.items()}
        return digest_json({"name": self.name, "instruction": self.instruction} | parts)


def _told(example: Example) -> dict[str, object]:
    """An example as its digest sees it."""
    told = example.model_dump(exclude={"source", "messages"})
    messages = [[message.role, message.content, *map(_image_digest, message.images)] for message in example.messages]
    return told | {"messages": messages}


def _image_digest(image: str) -> str:
    try:
        return digest_file(Path(image))
    except OSError as error:
        raise RequestError(f"{image} cannot be read: {error.strerror or error}") from error
