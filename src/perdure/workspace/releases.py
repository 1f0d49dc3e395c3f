"""What serves, and what served when: moves of aliases, and canaries."""

from dataclasses import dataclass

from perdure.governance.canary import CanaryPlan


@dataclass(frozen=True)
class AliasMove:
    """One step of an alias.

    Attributes:
        alias: Its name.
        version: The id of the version that it then held.
        previous: The id that it held before, if any.
        kind: "promote", "rollback" or "break glass".
        actor: Who moved it.
        policy: The digest of the policy in force, if one was named.
        time: UTC, ISO 8601.
        sequence: The ledger row.
    """

    alias: str
    version: str
    previous: str | None
    kind: str
    actor: str
    policy: str | None
    time: str
    sequence: int


@dataclass(frozen=True)
class Served:
    """A time in which an alias held a version.

    Attributes:
        alias: Its name.
        version: The version's id.
        since: UTC, ISO 8601.
        until: When it held another; None while it does.
        kind: How it came: "promote", "rollback" or "break glass".
        actor: Who did it.
        policy: The digest of the policy that was in force, if one was named.
        approvers: Who had approved it then.
    """

    alias: str
    version: str
    since: str
    until: str | None
    kind: str
    actor: str
    policy: str | None
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CanaryStep:
    """One step of a canary: "start", "step", "promote", "fall back" or "stop", with the share from then on."""

    event: str
    weight: float
    reason: str
    actor: str
    time: str


@dataclass(frozen=True)
class Canary:
    """A candidate that answers a share of an alias's requests.

    Attributes:
        number: Its number in the workspace.
        alias: Whose requests are shared out.
        stable: The id of the version that the alias holds.
        candidate: The id of the candidate.
        plan: Shares, hold, conditions.
        steps: What happened, oldest first.
    """

    number: int
    alias: str
    stable: str
    candidate: str
    plan: CanaryPlan
    steps: tuple[CanaryStep, ...]

    @property
    def running(self) -> bool:
        """Whether requests are shared out now."""
        return self.steps[-1].event in ("start", "step")

    @property
    def weight(self) -> float:
        """The candidate's share of the requests now."""
        return self.steps[-1].weight
