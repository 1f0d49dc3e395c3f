"""The settings of a pool as people give them, and the texts by which a task is put into a group."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.requests.tasks import Example, Task
from perdure.tuning.grouping import GroupingConfig
from perdure.tuning.pool import Pool
from perdure.tuning.routing import Fallback, RoutingConfig
from perdure.tuning.similarity import Encoder, SentenceEncoder, TfidfEncoder

TFIDF = "tfidf"
_INSTRUCTIONS = 64  # more of one task tell nothing new, and all stand in the router's file
_PROMPTS = 16


class PoolConfig(BaseModel):
    """Settings of a pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pool"] = "pool"
    cap: int = Field(8, ge=1, description="Groups at most; then the nearest is taken")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="Similarity from which a task joins or a group answers; calibrated if not given"
    )
    encoder: str = Field(TFIDF, min_length=1, description="tfidf, or folder or hub id of a sentence encoder")
    fallback: Fallback = Field("base", description="Who answers a request that resembles no group: base or nearest")
    allowed: float = Field(0.0, ge=0, description="Rise of a group's held-out loss (nats a token) that is put up with")

    @property
    def grouping(self) -> GroupingConfig:
        """What of it decides on groups."""
        return GroupingConfig(cap=self.cap, threshold=self.threshold)

    @property
    def routing(self) -> RoutingConfig:
        """What of it decides on requests."""
        return RoutingConfig(fallback=self.fallback)

    def made_encoder(self) -> Encoder:
        """The encoder of a new pool."""
        return TfidfEncoder.fitted() if self.encoder == TFIDF else SentenceEncoder(self.encoder)


def settings_of(pool: Pool) -> dict[str, object]:
    """The settings that a pool has."""
    encoder = pool.groups.encoder.state()
    return {
        "cap": pool.groups.config.cap,
        "threshold": pool.groups.config.threshold,
        "encoder": TFIDF if encoder.kind == "tfidf" else encoder.model,
        "fallback": pool.routing.fallback,
    }


def instructions_of(task: Task) -> tuple[str, ...]:
    """The texts by which a task is grouped: its different instructions, else its first prompts."""
    asked = [task.instruction, *(example.instruction for example in task.train)]
    texts = list(dict.fromkeys(text.strip() for text in asked if _says(text)))[:_INSTRUCTIONS]
    if not texts:
        texts = list(dict.fromkeys(request_of(example) for example in task.train if _says(request_of(example))))
        texts = texts[:_PROMPTS]
    return tuple(texts)


def request_of(example: Example) -> str:
    """What a router reads of an example: everything before the last answer, the messages below each other."""
    return "\n\n".join(message.content for message in example.messages[:-1]).strip()


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))
