"""What the API takes and gives."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.governance.canary import CanaryMeasures, CanaryPlan, Decision
from perdure.measuring.kpis import KpiComparison
from perdure.requests.kpis import KpiEntry
from perdure.web.server.asking import ASKED_LIMIT, PROMPT_LIMIT, TOKENS_LIMIT
from perdure.web.server.naming import ALIAS, LAST, VERSION
from perdure.web.server.requesting import NOTE_LIMIT, How

HASH = "^[0-9a-f]{64}$"
_TEXT = 4000


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Me(_Shown):
    """Who makes the request."""

    name: str
    way: str = Field(description="login or token")
    roles: list[str]
    scopes: list[str] = Field(description="Of the token; empty for a login")


class VersionShown(_Shown):
    """One version."""

    number: int
    name: str = Field(description="Such as v3")
    id: str = Field(description="sha256 of its manifest")
    parent: str | None = Field(description="The id of the version that it was made from")
    requester: str
    created: str
    status: str = Field(description="base, candidate, approved or rejected")
    aliases: list[str] = Field(default_factory=list, description="Those that hold it")


class ConsentShown(_Shown):
    """An approval, and why it counts no more; empty while it does."""

    approver: str
    comment: str
    time: str
    report: str
    policy: str
    void: str


class SaidShown(_Shown):
    """What somebody wrote, as a comment or as the reason of a rejection."""

    actor: str
    text: str
    time: str


class VersionCard(VersionShown):
    """One version with what a decision looks at."""

    recipe: dict[str, Any]
    report: str = Field(description="The digest of its latest report, which an approval names; empty without one")
    policy: str = Field(description="The digest of the policy in force, which an approval names")
    verdict: str = Field(description="pass, fail or inconclusive under that policy; empty where not measured")
    required: int = Field(description="How many must approve for production")
    missing: str = Field(description="What is missing for production, in words; empty when nothing is")
    approvals: list[ConsentShown]
    rejections: list[SaidShown]
    comments: list[SaidShown]


class CanaryMoved(_Shown):
    """One step of a canary."""

    event: str = Field(description="start, step, promote, fall back or stop")
    weight: float = Field(description="The candidate's share from then on")
    reason: str
    actor: str
    time: str


class CanaryShown(_Shown):
    """A candidate that answers a share of an alias's requests."""

    number: int
    alias: str
    stable: str = Field(description="The version that the alias holds, such as v3")
    candidate: str
    running: bool
    weight: float = Field(description="The candidate's share now")
    plan: CanaryPlan
    steps: list[CanaryMoved]
    measures: CanaryMeasures | None = Field(description="What the gateway saw, if it counted anything")
    next: Decision | None = Field(description="What the plan says to that")


class Move(_Shown):
    """A time in which an alias held a version."""

    alias: str
    version: str
    since: str
    until: str | None
    kind: str
    actor: str
    approvers: list[str]


class Entry(_Shown):
    """One row of the ledger."""

    sequence: int
    time: str
    actor: str
    action: str
    details: dict[str, Any]
    previous: str
    hash: str


class JobShown(_Shown):
    """One request in the queue."""

    id: str
    kind: str
    requester: str
    title: str
    state: str = Field(description="queued, running, done, failed or stopped")
    stage: str
    done: int
    total: int
    created: float
    changed: float
    result: dict[str, Any]
    error: str


class PolicyShown(BaseModel):
    """The policy in force."""

    digest: str
    limits: dict[str, Any]
    explained: dict[str, list[str]]


class MeasureShown(_Shown):
    """One curve of the monitor."""

    name: str
    label: str
    unit: str
    limit: float | None
    beyond: list[str] = Field(description="The versions on the wrong side of the limit")
    rows: list[Mapping[str, Any]]


class KpiShown(_Shown):
    """One figure of one KPI."""

    sequence: int = Field(description="The row of the ledger, by which a correction names it")
    name: str
    unit: str
    better: str = Field(description="higher or lower")
    version: str = Field(description="Such as v3")
    period_start: str
    period_end: str = Field(description="The last day, which belongs to the period")
    value: float
    n: int | None
    corrects: int | None
    actor: str
    time: str
    in_force: bool = Field(description="Whether no later row corrects it")


class KpisCompared(_Shown):
    """KPIs under two versions; no experiment."""

    before: str
    after: str
    kpis: list[KpiComparison]
    model: list[dict[str, dict[str, float]]] = Field(description="Of each version value, low, high by measure")
    note: str


class FactsGiven(_Given):
    """Facts to teach."""

    facts: list[dict[str, Any]] = Field(min_length=1, max_length=200_000, description="In any shape of a facts file")
    how: How = How()


class TaskGiven(_Given):
    """A task to learn, by examples."""

    name: str = Field(min_length=1, max_length=200)
    rows: list[dict[str, Any]] = Field(min_length=1, max_length=200_000, description="In any shape of a task's file")
    how: How = How()


class Removal(_Given):
    """A fact to take out."""

    on: str = Field("", pattern=f"^$|{VERSION}", description="Of which version; the newest that holds it if not given")
    note: str = Field("", max_length=NOTE_LIMIT, description="Why; it becomes a comment on the version")


class KpisGiven(_Given):
    """Figures to enter: all of them, or none where one cannot be."""

    rows: list[KpiEntry] = Field(min_length=1, max_length=10_000)


class Words(_Given):
    """Something written."""

    text: str = Field(min_length=1, max_length=_TEXT)


class Approval(_Given):
    """A consent; it takes a person who signed in, and their password once more or what they confirmed on its page."""

    report: str = Field(pattern=HASH, description="The digest of the report that was seen")
    policy: str = Field(pattern=HASH, description="The digest of the policy that was seen")
    password: str = Field("", max_length=1024, description="Empty where they confirmed at the sign-in provider")
    comment: str = Field("", max_length=_TEXT)


class Promotion(_Given):
    """To which alias, and what it must hold now."""

    alias: str = Field(pattern=ALIAS)
    held: str | None = Field(None, pattern=VERSION, description="Refused if the alias holds something else meanwhile")


class CanaryStart(_Given):
    """A canary to begin."""

    alias: str = Field(pattern=ALIAS)
    plan: CanaryPlan = CanaryPlan()


class CanaryStep(_Given):
    """Another share for a canary's candidate."""

    weight: float = Field(gt=0, lt=1)
    number: int | None = Field(None, ge=1, le=LAST, description="Refused if the alias has another canary meanwhile")
    reason: str = Field("", max_length=_TEXT)


class CanaryEnd(_Given):
    """How a canary ends."""

    how: Literal["promote", "fall back", "stop"]
    number: int | None = Field(None, ge=1, le=LAST, description="Refused if the alias has another canary meanwhile")
    reason: str = Field("", max_length=_TEXT)


class Question(_Given):
    """A question to one version, and to others beside it."""

    prompt: str = Field(min_length=1, max_length=PROMPT_LIMIT)
    beside: list[str] = Field(default_factory=list, max_length=ASKED_LIMIT - 1)
    chat: bool = False
    tokens: int = Field(64, ge=1, le=TOKENS_LIMIT)


class Pair(_Given):
    """Two versions to compare."""

    first: str = Field(pattern=VERSION)
    second: str = Field(pattern=VERSION)
