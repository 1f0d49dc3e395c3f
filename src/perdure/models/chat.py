"""Conversations as one text, written by chat templates in the form that each takes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from perdure.errors import RequestError

_PROBE = "Is this written"


class Said(Protocol):
    """A message: who says it ("system", "user" or "assistant"), its text, and its pictures' files."""

    @property
    def role(self) -> str: ...  # noqa: D102

    @property
    def content(self) -> str: ...  # noqa: D102

    @property
    def images(self) -> Sequence[str]: ...  # noqa: D102


def write_chat(writer: Any, messages: Sequence[Said], *, ask: bool, mark: str = "") -> str:
    """The conversation as one text, a mark for each picture.

    A template takes messages as texts or as lists of parts; given the other, some write nothing of it, and some write
    Python's notation of the list. Which one it takes is seen on a message of known words.

    Args:
        writer: A tokenizer or processor that has a chat template.
        messages: The conversation.
        ask: Whether the prompt to write the next answer stands at its end.
        mark: What stands for a picture; none are written without it.

    Raises:
        RequestError: The template refuses the messages, or leaves out a text or a picture.
    """
    form = _form(writer, mark)
    said = [{"role": message.role, "content": form(message, mark)} for message in messages]
    try:
        written: str = writer.apply_chat_template(said, tokenize=False, add_generation_prompt=ask)
    except Exception as error:  # a template is a program and raises whatever it likes
        raise RequestError(f"the chat template refuses these messages: {error}") from error
    texts = [piece for message in messages for piece in (message.content.split(mark) if mark else [message.content])]
    pictures = sum(len(message.images) for message in messages)
    if (mark and written.count(mark) != pictures) or not all(text.strip() in written for text in texts):
        raise RequestError("the chat template does not write every text and every picture of these messages")
    return written


def marked(message: Said, mark: str) -> str:
    """The message's text, with a mark for each picture before it where it has none itself."""
    if not message.images or mark in message.content:
        return message.content
    return f"{mark * len(message.images)}\n{message.content}"


def _parts(message: Said, mark: str) -> list[dict[str, str]]:
    pieces = message.content.split(mark) if mark else [message.content]
    parts = [] if len(pieces) > 1 else [{"type": "image"}] * len(message.images)
    for index, piece in enumerate(pieces):
        parts += [{"type": "image"}] if index else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


def _form(writer: Any, mark: str) -> Callable[[Said, str], Any]:
    """The form that the template takes; where both will do, parts if there can be pictures, else the plain text."""
    forms = ((_parts, [{"type": "text", "text": _PROBE}]), (marked, _PROBE))
    for form, content in forms if mark else forms[::-1]:
        try:
            said = [{"role": "user", "content": content}]
            written = writer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        except Exception:  # noqa: S112 - a template is a program and raises whatever it likes
            continue
        if _PROBE in written and repr(content) not in written:
            return form
    raise RequestError("the chat template does not write every text: nothing of what the user says")
