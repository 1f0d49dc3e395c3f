"""What clients may ask: the part of OpenAI's requests that every backend here answers alike.

Whatever is not listed is refused, not ignored: a setting without effect, or one that reaches a backend unread, would
be worse. Pictures are refused for that reason too: their URLs would be fetched by whoever answers.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.settings import Limits

MODEL_LENGTH = 100
_STOPS = 4
_STOP_LENGTH = 200
_ID_LENGTH = 512

_Stop = Annotated[str, Field(min_length=1, max_length=_STOP_LENGTH)]
_None = Annotated[float, Field(ge=0, le=0)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Shape):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Shape):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    def said(self) -> "Said":
        """The message as chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Said("system" if self.role == "developer" else self.role, text)


class StreamOptions(_Shape):
    """How to stream."""

    include_usage: bool = False


class _Asking(_Shape):
    model: str = Field(min_length=1, max_length=MODEL_LENGTH, description="An alias, or the name or id of a version")
    max_tokens: int | None = Field(None, ge=1, description="At most this many new tokens")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False, description="0, also if not given: greedy")
    top_p: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="Draw from this share of probability"
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="The same seed draws the same answer")
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_STOPS)] | None = Field(None, description="Ends the answer")
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=_ID_LENGTH, description="Whoever asks; one user stays on one version")
    n: Literal[1] | None = None
    presence_penalty: _None | None = None
    frequency_penalty: _None | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Asking):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens")
    logprobs: Literal[False] | None = None

    def asked(self, limits: Limits, seed: int) -> "Asked":
        """What is asked, within the limits.

        Raises:
            AnswerError: It is over them.
        """
        if len(self.messages) > limits.messages:
            allowed = f"a conversation may have {limits.messages} messages; given {len(self.messages)}"
            raise AnswerError(400, "too_many_messages", allowed, param="messages")
        messages = tuple(message.said() for message in self.messages)
        if not messages[-1].content.strip():
            raise AnswerError(400, "invalid_value", "the last message says nothing", param="messages")
        return _asked(self, limits, seed, messages=messages, most=self.max_completion_tokens)


class CompletionRequest(_Asking):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    def asked(self, limits: Limits, seed: int) -> "Asked":
        """What is asked, within the limits.

        Raises:
            AnswerError: It is over them.
        """
        prompt = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return _asked(self, limits, seed, prompt=prompt)


class Feedback(_Shape):
    """POST /v1/feedback: how good an answer was."""

    id: str = Field(min_length=1, max_length=MODEL_LENGTH, description="The id of the answer")
    score: float = Field(ge=0, le=1, allow_inf_nan=False, description="From 0, of no use, to 1")


@dataclass(frozen=True)
class Said:
    """A message: who says it, and its text."""

    role: str
    content: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        messages: The conversation; empty where a text is to be continued.
        prompt: That text.
        tokens: At most so many new ones.
        temperature: 0: the most probable token.
        top_p: The share of probability that is drawn from.
        seed: Of the draws.
        stops: Texts that end the answer and are no part of it.
    """

    messages: tuple[Said, ...]
    prompt: str
    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()

    @property
    def request(self) -> str:
        """The request as it was written: what a pool's router reads."""
        return "\n\n".join(message.content for message in self.messages).strip() if self.messages else self.prompt

    @property
    def options(self) -> dict[str, Any]:
        """What a backend is told beside the conversation or the text."""
        drawn = {"top_p": self.top_p, "seed": self.seed} if self.temperature > 0 else {}
        stops = {"stop": list(self.stops)} if self.stops else {}
        return {"max_tokens": self.tokens, "temperature": self.temperature, **drawn, **stops}


def _asked(
    given: _Asking,
    limits: Limits,
    seed: int,
    *,
    messages: tuple[Said, ...] = (),
    prompt: str = "",
    most: int | None = None,
) -> Asked:
    if given.stream_options is not None and not given.stream:
        raise AnswerError(400, "invalid_value", "stream_options goes with stream", param="stream_options")
    if most is not None and given.max_tokens is not None:
        both = "max_tokens and max_completion_tokens say the same; give one"
        raise AnswerError(400, "invalid_value", both, param="max_tokens")
    tokens = most or given.max_tokens or min(limits.usual_tokens, limits.tokens)
    if tokens > limits.tokens:
        allowed = f"an answer may have {limits.tokens} tokens; asked for {tokens}"
        raise AnswerError(400, "too_many_tokens", allowed, param="max_tokens")
    temperature, top_p = given.temperature or 0.0, 1.0 if given.top_p is None else given.top_p
    own_seed = seed if given.seed is None else given.seed
    return Asked(messages, prompt, tokens, temperature, top_p, own_seed, given.stops)
