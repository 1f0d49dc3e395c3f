"""Messages with pictures as model inputs: placed by the model's processor, with the tokens that the assistant writes.

Shape suffixes: B rows (one here), T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from perdure.errors import ModelError, RequestError
from perdure.models.chat import Said, marked, write_chat
from perdure.models.loading import require_pillow
from perdure.models.tokens import join
from perdure.pictures import open_picture


@dataclass(frozen=True)
class EncodedMessages:
    """A conversation as the model reads it.

    Attributes:
        inputs: Keyword arguments of the forward pass: `input_ids` [1, T], `attention_mask` [1, T], and what the
            processor made of the pictures, such as `pixel_values`.
        learns: Whether the assistant writes each token [T], the end of its turn included; without a chat template,
            in the last message only.
        answer_start: The index of the first token of the last answer; T where the answer is still to be written.
    """

    inputs: dict[str, Tensor]
    learns: tuple[bool, ...]
    answer_start: int


def open_pictures(messages: Sequence[Said]) -> list[Any]:
    """All pictures of a conversation in their order, as RGB, turned upright as their camera noted.

    Raises:
        ModelError: Pillow is not installed.
        RequestError: A file is missing, or no picture.
    """
    require_pillow()
    return [open_picture(Path(path)) for message in messages for path in message.images]


def encode_messages(
    processor: Any, messages: Sequence[Said], *, images: Sequence[Any], plain: bool = False
) -> EncodedMessages:
    """A conversation as model inputs; where its last message is the assistant's, with that answer.

    Pictures stand before their message's text, or where the text names them by the processor's own mark (`<image>`
    in LLaVA). The conversation is written by the processor's chat template; without one, the texts stand one after
    the other, a blank line between turns, and the answer ends with the end token.

    Args:
        processor: As `load_processor` gives it.
        messages: The conversation.
        images: Its opened pictures, in order, as `open_pictures` gives them.
        plain: Leave the chat template out.

    Raises:
        RequestError: Pictures and marks do not agree, or the answer cannot be told from what is before it.
        ModelError: The processor places pictures in a way that is not understood.
    """
    _check_pictures(processor.image_token, messages, images)
    whole, turns = _texts(processor, messages, plain=plain)
    special = not whole.startswith(processor.tokenizer.bos_token or "\0")  # the template may write the start token
    inputs = dict(processor(text=[whole], images=list(images) or None, return_tensors="pt", add_special_tokens=special))
    own = processor.tokenizer(whole, add_special_tokens=special)["input_ids"]
    spans = [_span(processor.tokenizer, own, turn, special) for turn in turns]
    ids = inputs["input_ids"][0].tolist()
    moved = _moved(processor, own, ids, [place for span in spans for place in span], images)
    pairs = list(zip(moved[::2], moved[1::2], strict=True))
    learns = [any(start <= place < stop for start, stop in pairs) for place in range(len(ids))]
    answered = messages[-1].role == "assistant"
    return EncodedMessages(inputs, tuple(learns), pairs[-1][0] if answered else len(ids))


def _texts(processor: Any, messages: Sequence[Said], *, plain: bool) -> tuple[str, list[tuple[str, str]]]:
    """The conversation as one text, and for each answer in it that text up to where it starts and to where it ends."""

    def write(count: int, *, ask: bool) -> str:
        if plain or not getattr(processor, "chat_template", None):
            return _plain(processor.tokenizer, messages[:count], processor.image_token, ask=ask)
        return write_chat(processor, messages[:count], ask=ask, mark=processor.image_token)

    answered = messages[-1].role == "assistant"
    whole = write(len(messages), ask=not answered)
    whole = whole.rstrip() if answered else whole
    templated = not plain and getattr(processor, "chat_template", None)
    places = [at for at, said in enumerate(messages) if said.role == "assistant"]
    turns = []
    for place in places if templated else places[-1:] if answered else []:
        turns.append((write(place, ask=True), write(place + 1, ask=False).rstrip()))
        if not turns[-1][1].startswith(turns[-1][0]) or not whole.startswith(turns[-1][1]):
            raise RequestError(
                "the chat template does not write a conversation as the continuation of its beginning, so it cannot "
                "be said which tokens the assistant writes; give rows of prompt and completion"
            )
    return whole, turns


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


def _span(tokenizer: Any, own: Sequence[int], turn: tuple[str, str], special: bool) -> tuple[int, int]:
    """Where an answer's tokens start and stop among those of the whole text, pictures being one mark each.

    Tokens may straddle its beginning; the answer starts at the first one in which the whole differs from the prompt.
    """
    before, after = (tokenizer(text, add_special_tokens=special)["input_ids"] for text in turn)
    same = 0
    while same < min(len(before), len(after) - 1) and before[same] == own[same]:
        same += 1
    return same, len(after)


def _moved(
    processor: Any, own: Sequence[int], ids: Sequence[int], places: Sequence[int], images: Sequence[Any]
) -> list[int]:
    """Where places among the text's own tokens lie among the processor's, which writes many tokens for each mark."""
    mark = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    marks = [at for at, token in enumerate(own) if token == mark]
    rest = len(own) - (marks[-1] + 1 if marks else 0)
    if list(own[len(own) - rest :]) != list(ids[len(ids) - rest :]) or len(marks) != len(images):
        raise ModelError(f"{type(processor).__name__} changes the text after its pictures; it is not understood")
    more = len(ids) - len(own)
    if all(place >= len(own) - rest for place in places):
        return [place + more for place in places]
    added = [_length(processor, image) - 1 for image in images]
    if sum(added) != more:
        raise ModelError(f"{type(processor).__name__} does not write each picture by itself; it is not understood")
    return [place + sum(added[: sum(at < place for at in marks)]) for place in places]


def _length(processor: Any, image: Any) -> int:
    """How many tokens the processor writes for a picture."""
    alone = processor(text=[processor.image_token], images=[image], return_tensors="pt", add_special_tokens=False)
    return int(alone["input_ids"].shape[1])


def _plain(tokenizer: Any, messages: Sequence[Said], mark: str, *, ask: bool) -> str:
    texts = [marked(message, mark) for message in messages]
    if ask:
        return "\n\n".join(texts)
    whole, end = join("\n\n".join(texts[:-1]), texts[-1]), tokenizer.eos_token
    closed = end is None or tokenizer(whole)["input_ids"][-1:] == [tokenizer.eos_token_id]
    return whole if closed else f"{whole}{end}"
