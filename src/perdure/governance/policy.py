"""The policy: what a candidate must hold to, as a hashed document."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import digest_json
from perdure.errors import SettingError
from perdure.governance.approval import ApprovalRules
from perdure.governance.budget import BudgetLimits
from perdure.governance.skill_limits import SkillLimits


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EditLimits(_Section):
    """Limits on what was to be learnt."""

    learnt: float = Field(ge=0, le=1)
    asked_differently: float = Field(ge=0, le=1)
    neighbours_lost: float = Field(ge=0, le=1)


class RetentionLimits(_Section):
    """Limits on what may be lost."""

    overall_lost: float = Field(ge=0, le=1)
    capability_lost: float = Field(ge=0, le=1)
    parts: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="limits of single capabilities by name, such as instructions"
    )


class TaskLimits(_Section):
    """Limits on what a lineage that is tuned on tasks may forget of the earlier ones, since each was learnt."""

    forgotten: float = Field(ge=0, le=1)
    task_lost: float = Field(ge=0, le=1)


class ConceptLimits(_Section):
    """Limits on what a model may cease to recognise: probe sets not tuned on, and protected concepts of its users."""

    mean_lost: float = Field(ge=0, le=1)
    set_lost: float = Field(ge=0, le=1)
    class_lost: float | None = Field(None, ge=0, le=1)
    watched_lost: float | None = Field(None, ge=0, le=1)


class LanguageLimits(_Section):
    """Limits on fluency."""

    perplexity_ratio: float = Field(ge=1)


class WeightLimits(_Section):
    """Limits on how far the weights may move from the base."""

    condition_ratio: float = Field(ge=1)
    norm_ratio: float = Field(gt=0)
    sigma_ratio: float | None = Field(None, gt=0)


class Policy(_Section):
    """All limits."""

    edits: EditLimits
    retention: RetentionLimits
    language: LanguageLimits
    weights: WeightLimits
    tasks: TaskLimits | None = None
    concepts: ConceptLimits | None = None
    skills: SkillLimits | None = None
    budget: BudgetLimits | None = None
    approval: ApprovalRules | None = None

    @property
    def digest(self) -> str:
        """The hash that an approval names."""
        limits = self.model_dump(exclude_none=True)
        if not self.retention.parts:  # policies from before this could be said keep their hash
            del limits["retention"]["parts"]
        return digest_json(limits)

    def approvers(self, alias: str) -> int:
        """How many different people must approve before a version stands behind an alias."""
        return (self.approval or ApprovalRules()).for_alias(alias)


def default_policy_text() -> str:
    """The policy file that a new workspace starts with."""
    return resources.files("perdure.governance").joinpath("default_policy.toml").read_text(encoding="utf-8")


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        SettingError: The file is missing, no TOML, or a limit is unknown, missing or out of range.
    """
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"the policy {path} cannot be read: {error}") from error


def parse_policy(text: str) -> Policy:
    """The policy in a TOML text.

    Raises:
        SettingError: No TOML, or a limit is unknown, missing or out of range.
    """
    try:
        return Policy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"the policy is no TOML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()]
        raise SettingError(f"the policy is not valid: {'; '.join(wrong)}") from error
