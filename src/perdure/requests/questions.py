"""Questions around a fact: those whose answers must stay, and those whose answers follow from it.

A `Consequence` may depend on several facts and say so by their ids, so that it counts only for a model that
was taught all of them. The limits are in characters or entries.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
)

from perdure.requests.wording import ONE_LINE, Wording

PROMPT_LIMIT = 2000
LABEL_LIMIT = 300
PARAPHRASES_LIMIT = 50
QUESTIONS_LIMIT = 1000
ALIASES_LIMIT = 500
HOPS_LIMIT = 20
NEEDS_LIMIT = 100


def unique(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each entry once, in order."""
    return tuple(dict.fromkeys(entries))


def at_most(limit: int) -> Callable[[object], object]:
    """A check of the length before any entry is looked at: a hostile list can have millions."""

    def check(given: object) -> object:
        if isinstance(given, list | tuple) and len(given) > limit:
            raise ValueError(f"has {len(given)} entries; at most {limit} are allowed")
        return given

    return check


Prompt = Annotated[
    str, Strict(), Field(min_length=1, max_length=PROMPT_LIMIT), BeforeValidator(Wording(PROMPT_LIMIT).clean)
]
Label = Annotated[
    str,
    Strict(),
    Field(min_length=1, max_length=LABEL_LIMIT),
    BeforeValidator(Wording(LABEL_LIMIT, ONE_LINE).clean),
]
Paraphrases = Annotated[
    tuple[Prompt, ...],
    Field(max_length=PARAPHRASES_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(PARAPHRASES_LIMIT)),
]
Aliases = Annotated[
    tuple[Label, ...],
    Field(max_length=ALIASES_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(ALIASES_LIMIT)),
]


class Neighbour(BaseModel):
    """A question that stands near a fact, with the answer that is expected after the edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description="What is asked.")
    answer: Prompt | None = Field(default=None, description="The right answer; null when it is not known.")


Questions = Annotated[
    tuple[Neighbour, ...],
    Field(max_length=QUESTIONS_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(QUESTIONS_LIMIT)),
]


class Hop(BaseModel):
    """One single step of a question that needs several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description="What is asked.")
    answer: Prompt = Field(description="The right answer after the edit.")
    aliases: Aliases = Field(default=(), description="Other answers that count as right.")


Hops = Annotated[
    tuple[Hop, ...],
    Field(max_length=HOPS_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(HOPS_LIMIT)),
]
FactId = Annotated[str, Strict(), Field(pattern=r"^[0-9a-f]{64}$")]
Needs = Annotated[
    tuple[FactId, ...],
    Field(max_length=NEEDS_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(NEEDS_LIMIT)),
]


class Consequence(BaseModel):
    """A question whose answer follows from a new fact, alone or together with others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description="What is asked.")
    paraphrases: Paraphrases = Field(default=(), description="The same question in other words.")
    answer: Prompt | None = Field(
        default=None, description="The right answer after the edit; null when it is not known: it is not scored."
    )
    aliases: Aliases = Field(default=(), description="Other answers that count as right.")
    old_answer: Prompt | None = Field(default=None, description="The right answer before; null when not known.")
    old_aliases: Aliases = Field(default=(), description="Other answers that were right before.")
    kind: Label | None = Field(default=None, description="What it tests, such as multi-hop or Subject_Aliasing.")
    hops: Hops = Field(
        default=(), description="Its single steps, asked beside it; the facts that it needs where none is given."
    )
    needs: Needs = Field(
        default=(), description="Ids of the facts that it depends on; empty for the one that it stands with."
    )

    @field_validator("old_answer")
    @classmethod
    def _changes(cls, old_answer: str | None, info: ValidationInfo) -> str | None:
        if old_answer is not None and old_answer == info.data.get("answer"):
            raise ValueError("equals the new answer: nothing follows from the fact")
        return old_answer

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every way in which it is asked, each once."""
        return unique((self.prompt, *self.paraphrases))

    def needing(self, facts: Iterable[str]) -> "Consequence":
        """The same question, which depends on these facts (by id) as well."""
        return self.model_copy(update={"needs": unique((*facts, *self.needs))})


Consequences = Annotated[
    tuple[Consequence, ...],
    Field(max_length=QUESTIONS_LIMIT),
    AfterValidator(unique),
    BeforeValidator(at_most(QUESTIONS_LIMIT)),
]
