"""How many people must agree before a version may stand behind an alias."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

PRODUCTION = "production"


class ApprovalRules(BaseModel):
    """Required approvers, all of them other people than those who asked for the change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    required: dict[str, int] = Field(
        default_factory=lambda: {PRODUCTION: 1}, description="alias to how many different people must approve"
    )

    @field_validator("required")
    @classmethod
    def _sensible(cls, required: dict[str, int]) -> dict[str, int]:
        if any(not 0 <= count <= 20 for count in required.values()):
            raise ValueError("between 0 and 20 people approve")
        if required.get(PRODUCTION, 1) < 1:
            raise ValueError("production needs at least one approver: four eyes always hold there")
        return required

    def for_alias(self, alias: str) -> int:
        """How many must approve for an alias: as the policy says, else one for production and none for others."""
        return self.required.get(alias, 1 if alias == PRODUCTION else 0)
