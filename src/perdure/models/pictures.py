"""Messages with pictures as model inputs: placed by the model's processor, with the place where the answer starts.

Shape suffixes: B rows (one here), T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from perdure.errors import ModelError, RequestError
from perdure.models.loading import require_pillow
from perdure.models.tokens import join


class Said(Protocol):
    """A message: who says it ("system", "user" or "assistant"), its text, and its pictures' files."""

    @property
    def role(self) -> str: ...  # noqa: D102

    @property
    def content(self) -> str: ...  # noqa: D102

    @property
    def images(self) -> Sequence[str]: ...  # noqa: D102


@dataclass(frozen=True)
class EncodedMessages:
    """A conversation as the model reads it.

    Attributes:
        inputs: Keyword arguments of the forward pass: `input_ids` [1, T], `attention_mask` [1, T], and what the
            processor made of the pictures, such as `pixel_values`.
        answer_start: The index of the first token of the last answer; T where the answer is still to be written.
    """

    inputs: dict[str, Tensor]
    answer_start: int


def open_pictures(messages: Sequence[Said]) -> list[Any]:
    """All pictures of a conversation in their order, as RGB, turned upright as their camera noted.

    Raises:
        ModelError: Pillow is not installed.
        RequestError: A file is missing, or no picture.
    """
    require_pillow()
    return [_open(Path(path)) for message in messages for path in message.images]


def _open(path: Path) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise RequestError(f"{path} cannot be read as a picture: {error}") from error


def encode_messages(processor: Any, messages: Sequence[Said], *, images: Sequence[Any]) -> EncodedMessages:
    """A conversation as model inputs; where its last message is the assistant's, with that answer.

    Pictures stand before their message's text, or where the text names them by the processor's own mark (`<image>`
    in LLaVA). The conversation is written by the processor's chat template; without one, the texts stand one after
    the other, a blank line between turns, and the answer ends with the end token.

    Args:
        processor: As `load_processor` gives it.
        messages: The conversation.
        images: Its opened pictures, in order, as `open_pictures` gives them.

    Raises:
        RequestError: Pictures and marks do not agree, or the answer cannot be told from what is before it.
        ModelError: The processor places pictures in a way that is not understood.
    """
    _check_pictures(processor.image_token, messages, images)
    asked, whole = _texts(processor, messages)
    special = not whole.startswith(processor.tokenizer.bos_token or "\0")  # the template may write the start token
    inputs = dict(processor(text=[whole], images=list(images) or None, return_tensors="pt", add_special_tokens=special))
    tail = _tail(processor.tokenizer, asked, whole, special)
    ids = inputs["input_ids"][0].tolist()
    start = len(ids) - len(tail)
    if ids[start:] != tail:
        raise ModelError(f"{type(processor).__name__} changes the text after its pictures; it is not understood")
    return EncodedMessages(inputs, start)


def _texts(processor: Any, messages: Sequence[Said]) -> tuple[str, str]:
    """The conversation up to where its answer is to be written, and with the answer, if there is one."""
    answered = messages[-1].role == "assistant"
    asked = _write(processor, messages[:-1] if answered else messages, ask=True)
    whole = _write(processor, messages, ask=False).rstrip() if answered else asked
    if not whole.startswith(asked):
        raise RequestError(
            "the chat template does not write a conversation as the continuation of its beginning, so it cannot be "
            "said which tokens the assistant writes"
        )
    return asked, whole


def _check_pictures(mark: str, messages: Sequence[Said], images: Sequence[Any]) -> None:
    wanted = sum(len(message.images) for message in messages)
    if wanted != len(images):
        raise RequestError(f"the messages name {wanted} pictures and {len(images)} were given")
    for message in messages:
        marks, pictures = message.content.count(mark), len(message.images)
        if marks not in {0, pictures}:
            raise RequestError(f"a message with {pictures} pictures has {marks} marks {mark}: one each, or none at all")
    last = messages[-1]
    if last.role == "assistant" and (last.images or not last.content.strip()):
        raise RequestError("an answer is text; pictures belong to the message before it")


def _tail(tokenizer: Any, asked: str, whole: str, special: bool) -> list[int]:
    """The tokens of the answer: those from where the whole differs from the question alone; pictures are one mark."""
    before, both = (tokenizer(text, add_special_tokens=special)["input_ids"] for text in (asked, whole))
    if asked == whole:
        return []
    same = 0
    while same < min(len(before), len(both) - 1) and before[same] == both[same]:
        same += 1
    return list(both[same:])


def _write(processor: Any, messages: Sequence[Said], *, ask: bool) -> str:
    """The conversation as one text, a mark for each picture.

    Raises:
        RequestError: The chat template leaves out a text or a picture.
    """
    mark = processor.image_token
    if not getattr(processor, "chat_template", None):
        return _plain(processor.tokenizer, messages, mark, ask=ask)
    pictures = sum(len(message.images) for message in messages)
    texts = [piece for message in messages for piece in message.content.split(mark)]
    for form in (_parts, _marked):  # templates take a list of parts, or, the older ones, a text with marks
        said = [{"role": message.role, "content": form(message, mark)} for message in messages]
        try:
            written: str = processor.apply_chat_template(said, tokenize=False, add_generation_prompt=ask)
        except Exception:  # noqa: S112 - a template is a program and raises whatever it likes
            continue
        if written.count(mark) == pictures and all(text.strip() in written for text in texts):
            return written
    raise RequestError("the chat template does not write every text and every picture of these messages")


def _parts(message: Said, mark: str) -> list[dict[str, str]]:
    pieces = message.content.split(mark)
    parts = [] if len(pieces) > 1 else [{"type": "image"}] * len(message.images)
    for index, piece in enumerate(pieces):
        parts += [{"type": "image"}] if index else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


def _marked(message: Said, mark: str) -> str:
    if not message.images or mark in message.content:
        return message.content
    return f"{mark * len(message.images)}\n{message.content}"


def _plain(tokenizer: Any, messages: Sequence[Said], mark: str, *, ask: bool) -> str:
    texts = [_marked(message, mark) for message in messages]
    if ask:
        return "\n\n".join(texts)
    whole, end = join("\n\n".join(texts[:-1]), texts[-1]), tokenizer.eos_token
    closed = end is None or tokenizer(whole)["input_ids"][-1:] == [tokenizer.eos_token_id]
    return whole if closed else f"{whole}{end}"
