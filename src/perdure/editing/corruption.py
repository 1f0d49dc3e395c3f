"""A known fact made ready for tracing: its tokens, what stands where, and the noise that hides its subject.

Shape suffixes: S draws of noise, N subject tokens, P tokens from the subject's first one on, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.content import digest_json
from perdure.errors import RequestError
from perdure.models.tokens import encode_pair, tokens_between

TOKEN_CLASSES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)
LAST_SUBJECT_TOKEN = 2
TRACED_LIMIT = 64  # each token is restored by itself, so the cost grows with the square of their number


@dataclass(frozen=True)
class TracedFact:
    """Something that a model may know: after `prompt`, which names the subject, it says `answer`."""

    subject: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class TracedRow:
    """The tokens of one fact.

    Attributes:
        ids: The prompt.
        answer: The first token of the answer.
        first: The index of the subject's first token.
        last: The index of the subject's last token; at least one token follows it.
    """

    ids: tuple[int, ...]
    answer: int
    first: int
    last: int

    @property
    def classes(self) -> tuple[int, ...]:
        """The place in TOKEN_CLASSES of each token from the subject's first one on.

        A token has one class. A subject of one token has only a last token, as in the paper; so has a prompt
        with one token after its subject.
        """
        length, after = self.last - self.first + 1, len(self.ids) - self.last - 1
        subject = [1] * length
        subject[0], subject[-1] = 0, LAST_SUBJECT_TOKEN
        rest = [4] * after
        rest[0], rest[-1] = 3, 5
        return (*subject, *rest)


def traced_row(tokenizer: Any, fact: TracedFact) -> TracedRow:
    """The tokens of a fact, with its subject found.

    Raises:
        RequestError: It cannot be traced; the message says why, without naming the fact.
    """
    if fact.prompt.count(fact.subject) != 1:
        raise RequestError("the subject does not stand in the prompt exactly once")
    begin = fact.prompt.index(fact.subject)
    both, length = encode_pair(tokenizer, fact.prompt, fact.answer)
    subject = tokens_between(tokenizer, fact.prompt, begin, begin + len(fact.subject))
    if subject[-1] >= length - 1:
        raise RequestError("the subject ends the prompt, so nothing after it can gather the answer")
    if length - subject[0] > TRACED_LIMIT:
        raise RequestError(f"more than {TRACED_LIMIT} tokens from the subject to the end of the prompt")
    return TracedRow(tuple(both[:length]), both[length], subject[0], subject[-1])


def embedding_spread(model: Any, rows: Sequence[TracedRow]) -> float:
    """σ: the standard deviation of the embedding's outputs, over all numbers of all subject tokens."""
    tokens = [token for row in rows for token in row.ids[row.first : row.last + 1]]
    with torch.no_grad():
        states_ND = model.get_input_embeddings()(torch.tensor(tokens, device=model.device))
    return float(states_ND.double().std(correction=0))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the embeddings of a subject.

    Attributes:
        scale: Its standard deviation.
        draws: How often it is drawn for each fact.
        seed: With the fact's tokens it decides every draw: the same on all devices and in any company of facts.
    """

    scale: float
    draws: int
    seed: int

    def of(self, row: TracedRow, width: int) -> Tensor:
        """The noise of a fact [S, P, D], float32; zero after its subject."""
        generator = torch.Generator().manual_seed(int(digest_json([self.seed, *row.ids])[:15], 16))
        drawn_SND = self.scale * torch.randn(self.draws, row.last - row.first + 1, width, generator=generator)
        return torch.nn.functional.pad(drawn_SND, (0, 0, 0, len(row.ids) - row.last - 1))
