"""A fact to teach a model: its schema, its limits and its identity.

A `Fact` is tidy from its birth: texts are stripped and in NFC, the subject stands in the prompt, targets
have no leading space (the code that tokenises adds it). The limits below are in characters; what the
model's tokenizer makes of them is checked when the model is known.
"""

import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo, field_validator

from perdure.content import digest_json
from perdure.requests.questions import PROMPT_LIMIT, Consequences, Label, Paraphrases, Prompt, Questions, unique
from perdure.requests.wording import ONE_LINE, SUBJECT, Wording, explain_absence, fill

SUBJECT_LIMIT = 300
TARGET_LIMIT = 300

_PROMPT = Wording(PROMPT_LIMIT)


Subject = Annotated[
    str,
    Strict(),
    Field(min_length=1, max_length=SUBJECT_LIMIT),
    BeforeValidator(Wording(SUBJECT_LIMIT, SUBJECT).clean),
]
Target = Annotated[
    str,
    Strict(),
    Field(min_length=1, max_length=TARGET_LIMIT),
    BeforeValidator(Wording(TARGET_LIMIT, ONE_LINE).clean),
]


class Fact(BaseModel):
    """One fact to teach: after `prompt`, the model shall say `target_new`.

    Raises:
        ValidationError: A field is missing, of the wrong type, blank, too long, holds a refused
            character, the prompt lacks the subject, or the new target equals the old one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Subject = Field(description="Whom or what the fact is about; stands word for word in the prompt.")
    prompt: Prompt = Field(
        description="The text before the answer; the subject stands in it, or {}, which is filled with the subject."
    )
    target_new: Target = Field(description="What the model shall say, without a leading space.")
    target_true: Target | None = Field(
        default=None, description="What the model says today; null when it is not known."
    )
    paraphrases: Paraphrases = Field(
        default=(), description="The same question in other words; {} is filled as in the prompt."
    )
    neighbours: Questions = Field(default=(), description="Questions whose answers must stay as they are.")
    portability: Consequences = Field(
        default=(), description="Questions whose answers follow from the new fact, alone or with others."
    )
    relation: Label | None = Field(default=None, description="The relation's name or id, such as P36.")
    source: Label | None = Field(default=None, description="Where this was asked, such as facts.jsonl:12.")

    @field_validator("prompt")
    @classmethod
    def _holds_subject(cls, prompt: str, info: ValidationInfo) -> str:
        subject = info.data.get("subject")
        if subject is None:
            return prompt
        filled = _filled(prompt, subject)
        if subject not in filled:
            raise ValueError(explain_absence(subject, filled))
        return filled

    @field_validator("target_true")
    @classmethod
    def _changes_something(cls, target_true: str | None, info: ValidationInfo) -> str | None:
        if target_true is not None and target_true == info.data.get("target_new"):
            raise ValueError("equals the new target: there is nothing to change")
        return target_true

    @field_validator("paraphrases")
    @classmethod
    def _filled_paraphrases(cls, paraphrases: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        subject = info.data.get("subject")
        if subject is None:
            return paraphrases
        return unique(tuple(_filled(text, subject) for text in paraphrases))

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes this fact the one it is: subject, prompt and new target, in NFC."""
        subject, prompt, target = (
            unicodedata.normalize("NFC", text) for text in (self.subject, self.prompt, self.target_new)
        )
        return subject, prompt, target

    @property
    def id(self) -> str:
        """The sha256 (hex) of the identity."""
        return digest_json(self.identity)

    @property
    def short_id(self) -> str:
        """The first twelve digits of the id, for people."""
        return self.id[:12]


def _filled(prompt: str, subject: str) -> str:
    filled = fill(prompt, subject)
    # The subject can make a prompt too long, or change what is NFC where the two meet.
    return prompt if filled == prompt else str(_PROMPT.clean(filled))


def fact_schema() -> dict[str, Any]:
    """The JSON Schema of a `Fact`, with limits and descriptions, for documents and forms."""
    return Fact.model_json_schema()
