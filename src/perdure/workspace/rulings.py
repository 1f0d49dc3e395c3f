"""What people decided: approvals, rejections, comments, policies, emergencies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Approval:
    """A valid consent to one version, given for one report under one policy.

    Attributes:
        version: The version's id.
        report: The digest of the report that was seen.
        policy: The digest of the policy that it was judged by.
        approver: Who approved; never the requester.
        comment: Their words.
        time: UTC, ISO 8601.
        sequence: The ledger row.
    """

    version: str
    report: str
    policy: str
    approver: str
    comment: str
    time: str
    sequence: int


@dataclass(frozen=True)
class Consent:
    """One approval, and whether it still counts.

    Attributes:
        approval: What was approved, by whom, when.
        void: Why it no longer counts, in plain words; empty while it does.
    """

    approval: Approval
    void: str = ""

    @property
    def valid(self) -> bool:
        """Whether it counts."""
        return not self.void


@dataclass(frozen=True)
class Standing:
    """Whether a version may stand behind an alias.

    Attributes:
        required: How many different people must approve.
        given: Who did, validly.
        missing: What is missing, in plain words; empty when nothing is.
    """

    required: int
    given: tuple[str, ...]
    missing: str = ""

    @property
    def enough(self) -> bool:
        """Whether it may."""
        return not self.missing


@dataclass(frozen=True)
class Rejection:
    """Somebody's refusal of a version, with the reason."""

    version: str
    actor: str
    reason: str
    time: str
    sequence: int


@dataclass(frozen=True)
class Comment:
    """What somebody wrote about a version."""

    version: str
    actor: str
    text: str
    time: str
    sequence: int


@dataclass(frozen=True)
class PolicyChange:
    """A policy that came into force.

    Attributes:
        digest: Of its limits; what approvals name.
        text: The TOML text.
        origin: "set" by the actor, or "found" in a file changed by hand when the actor was at work.
        actor: Who.
        time: UTC, ISO 8601.
        sequence: The ledger row.
    """

    digest: str
    text: str
    origin: str
    actor: str
    time: str
    sequence: int


@dataclass(frozen=True)
class Emergency:
    """A version that went live without consent.

    Attributes:
        sequence: The ledger row, by which it is reviewed.
        version: The version's id.
        alias: Where it went live.
        actor: Who broke the glass.
        reason: Why.
        time: UTC, ISO 8601.
        expires: When it must be approved, or taken back.
        reviewer: Who looked at it since; empty while nobody did.
        review: Their words.
    """

    sequence: int
    version: str
    alias: str
    actor: str
    reason: str
    time: str
    expires: str
    reviewer: str = ""
    review: str = ""
