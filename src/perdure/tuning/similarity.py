"""Encoders: texts to unit vectors whose inner product says how alike two instructions are.

Shape suffixes: N texts, D dimensions, T tokens.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor

from perdure.content import digest_json, digest_tensor
from perdure.errors import IntegrityError, ModelError, SettingError
from perdure.tuning.phrasings import PHRASINGS

_BUCKETS = 1 << 13
_BATCH = 32
_LONGEST = 256  # tokens: what the usual sentence encoders were trained on


class TfidfState(BaseModel):
    """A fitted corpus encoder, as it stands in a router file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tfidf"] = "tfidf"
    documents: int = Field(ge=1, description="texts that it was fitted on")
    frequencies: dict[Annotated[int, Field(ge=0, lt=_BUCKETS)], PositiveInt] = Field(
        description="in how many of them each hashed term stands"
    )


class SentenceState(BaseModel):
    """Which sentence encoder was used, as it stands in a router file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sentence"] = "sentence"
    model: str = Field(description="folder or hub id")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 over its weights")


EncoderState = Annotated[TfidfState | SentenceState, Field(discriminator="kind")]


class Encoder(Protocol):
    """Texts to unit vectors."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float64; zero for a text without any letter or digit."""
        ...

    def state(self) -> TfidfState | SentenceState:
        """All that is needed to make it again."""
        ...


class TfidfEncoder:
    """TF-IDF of words and letter sequences, with document frequencies from one corpus.

    Terms are hashed, so that a text of words that the corpus does not have still resembles itself: they weigh
    most. No word is left out, so a text of stop words is a text like any other.
    """

    def __init__(self, state: TfidfState) -> None:
        self._state = state
        counts_D = np.zeros(_BUCKETS)
        for bucket, count in state.frequencies.items():
            counts_D[bucket] = count
        self._weight_D = np.log((1 + state.documents) / (1 + counts_D)) + 1

    @classmethod
    def fitted(cls, texts: Sequence[str] = ()) -> "TfidfEncoder":
        """The encoder of a corpus: these texts and the built-in instructions."""
        corpus = sorted({*texts, *(text for wordings in PHRASINGS for text in wordings)})
        present = np.asarray((_vectorizer().transform(corpus) != 0).sum(0)).ravel()
        frequencies = {int(bucket): int(present[bucket]) for bucket in np.flatnonzero(present)}
        return cls(TfidfState(documents=len(corpus), frequencies=frequencies))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, 8192], float64; zero for a text without any letter or digit."""
        if not texts:
            return torch.zeros(0, _BUCKETS, dtype=torch.float64)
        counts_ND = _vectorizer().transform(texts).toarray()
        damped_ND = np.sign(counts_ND) * np.log1p(np.abs(counts_ND))
        return _unit(torch.from_numpy(damped_ND * self._weight_D))

    def state(self) -> TfidfState:
        """The document frequencies."""
        return self._state


def _vectorizer() -> Any:
    return HashingVectorizer(analyzer=_terms, n_features=_BUCKETS, norm=None, alternate_sign=True)


def _terms(text: str) -> Iterator[str]:
    """The words of a text, and the sequences of three to five letters in them; case and accents' coding aside."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    for word in "".join(char if char.isalnum() else " " for char in plain).split():
        yield f"word {word}"
        edged = f" {word} "
        for size in (3, 4, 5):
            yield from (edged[start : start + size] for start in range(len(edged) - size + 1))


class SentenceEncoder:
    """A transformer's hidden states, averaged over the tokens of a text: such as all-MiniLM-L6-v2.

    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, with mean pooling; texts are cut at 256 tokens.

    Args:
        model: Folder or hub id of a model in safetensors.
        digest: Its weights must have this hash, where given.

    Raises:
        ModelError: It cannot be loaded, or its weights are not in safetensors.
        IntegrityError: The weights are others.
    """

    def __init__(self, model: str, *, digest: str | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer

        safe = {"trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, **safe)
            network = AutoModel.from_pretrained(model, use_safetensors=True, dtype=torch.float32, **safe)
        except (OSError, ValueError) as error:
            raise ModelError(f"{model} is no sentence encoder with safetensors: {error}") from error
        self._network = network.eval().requires_grad_(False)
        weights = {name: digest_tensor(value) for name, value in self._network.state_dict().items()}
        self._state = SentenceState(model=model, digest=digest_json(weights))
        if digest is not None and digest != self._state.digest:
            raise IntegrityError(f"the sentence encoder {model} has other weights than the one that was used")

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float64; zero for a text without any letter or digit."""
        width = int(self._network.config.hidden_size)
        found_ND = torch.zeros(len(texts), width, dtype=torch.float64)
        said = [index for index, text in enumerate(texts) if any(map(str.isalnum, text))]
        for start in range(0, len(said), _BATCH):
            chosen = said[start : start + _BATCH]
            found_ND[chosen] = self._pooled([texts[index] for index in chosen])
        return found_ND

    def _pooled(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt")
        hidden_NTD = self._network(**tokens).last_hidden_state.double()
        mask_NT1 = tokens["attention_mask"][..., None].double()
        return _unit((hidden_NTD * mask_NT1).sum(1) / mask_NT1.sum(1))

    def state(self) -> SentenceState:
        """The model's name and the hash of its weights."""
        return self._state


def encoder_of(state: TfidfState | SentenceState) -> Encoder:
    """The encoder that a state describes; a sentence encoder is loaded and its weights are checked."""
    if isinstance(state, TfidfState):
        return TfidfEncoder(state)
    return SentenceEncoder(state.model, digest=state.digest)


class Later:
    """The encoder of a state, made when a text is first encoded: a sentence encoder takes time to load."""

    def __init__(self, state: TfidfState | SentenceState) -> None:
        self._state = state
        self._made: Encoder | None = None

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float64, as the encoder gives them."""
        self._made = self._made or encoder_of(self._state)
        return self._made.encode(texts)

    def state(self) -> TfidfState | SentenceState:
        """The state."""
        return self._state


def likeness(texts_ND: Tensor, members_MD: Tensor) -> Tensor:
    """How much each text resembles the instructions of a task, [N]: its best cosine with one or with their centre.

    A mean over all pairs, as published, would put ten wordings of one task far from each of them: a text that is
    one of them scores 1 here.

    Raises:
        SettingError: A task without instructions.
    """
    if not len(members_MD):
        raise SettingError("a task needs at least one instruction")
    against_MD = torch.cat([members_MD, _unit(members_MD.mean(0, keepdim=True))])
    return (texts_ND @ against_MD.T).amax(1).clamp(-1.0, 1.0)


def _unit(rows_ND: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows_ND, dim=1, eps=1e-12)


def separation(vectors: Mapping[str, Tensor], groups: Mapping[str, str] | None = None) -> "Similarities":
    """How alike texts of one task and of different tasks are, each text scored as a new one would be.

    Args:
        vectors: From each task to the vectors [N, D] of its different texts.
        groups: From each task to its group: two tasks of one group count as neither. None: all are apart.
    """
    within, between = [], []
    for name, own_ND in vectors.items():
        for index in range(len(own_ND) if len(own_ND) > 1 else 0):
            rest_ND = torch.cat([own_ND[:index], own_ND[index + 1 :]])
            within.append(float(likeness(own_ND[index : index + 1], rest_ND)))
        apart = [other for other in vectors if other != name and (groups is None or groups[other] != groups[name])]
        if apart and len(own_ND):
            between += torch.stack([likeness(own_ND, vectors[other]) for other in apart]).amax(0).tolist()
    return Similarities(tuple(within), tuple(between))


@dataclass(frozen=True)
class Similarities:
    """What is known of how alike instructions are.

    Attributes:
        within: Of each text with the other texts of its task.
        between: Of each text with the most alike of the other tasks.
    """

    within: tuple[float, ...]
    between: tuple[float, ...]

    def threshold(self) -> float:
        """The similarity that parts the two best: the least sum of the share missed and the share falsely joined.

        Where they overlap not at all it is the middle of the gap.

        Raises:
            SettingError: One of the two is empty.
        """
        if not self.within or not self.between:
            raise SettingError("a threshold needs similarities within tasks and between tasks")
        values = sorted({-1.0, *self.within, *self.between, 1.0})
        middles = [(low + high) / 2 for low, high in pairwise(values)]
        costs = [self._cost(middle) for middle in middles]
        best = [middle for middle, cost in zip(middles, costs, strict=True) if cost == min(costs)]
        return best[len(best) // 2]

    def _cost(self, limit: float) -> float:
        missed = sum(value < limit for value in self.within) / len(self.within)
        return missed + sum(value >= limit for value in self.between) / len(self.between)


def built_in_similarities(encoder: Encoder) -> Similarities:
    """How alike the built-in instructions are to this encoder."""
    return separation({wordings[0]: encoder.encode(wordings) for wordings in PHRASINGS})
