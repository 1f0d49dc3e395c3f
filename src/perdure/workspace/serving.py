"""The part of a workspace that releases versions: aliases, canaries, emergencies, and what served when."""

import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from perdure.errors import IntegrityError, PerdureError
from perdure.governance.canary import CanaryPlan
from perdure.workspace.noting import Noting
from perdure.workspace.opened import current_user
from perdure.workspace.people import SYSTEM
from perdure.workspace.records import Version
from perdure.workspace.releases import Canary, Served
from perdure.workspace.rulings import Emergency

ROLLBACK_TIME = "rollback time"
"""The ledger's action that tells how long a rollback took, and whether its target was whole."""


class Serving(Noting):
    """Aliases and what they hold."""

    def promote(
        self,
        ref: "str | Version",
        alias: str,
        *,
        actor: str = "",
        expected: "Version | Literal['any'] | None" = "any",
    ) -> None:
        """Let an alias hold a version; it needs as many approvals as the policy says for this alias.

        Args:
            ref: Which.
            alias: Such as staging or production.
            actor: Who promotes.
            expected: What the alias must hold now; None for nothing yet, "any" not to care.

        Raises:
            RefusedError: Too few valid approvals, or no operator.
            WorkspaceError: The alias holds something else than expected, or has a canary.
        """
        who = actor or current_user()
        policy = self.settle_policy(who)
        self.archive.promote(
            self.version(ref),
            alias,
            actor=who,
            policy=policy.digest,
            expected=expected,
            required=policy.approvers(alias),
        )

    def rollback(self, alias: str, *, actor: str = "") -> Version:
        """Let an alias hold what it held before; every tensor of that version is verified first."""
        who, began = actor or current_user(), time.monotonic()
        try:
            target = self.archive.rollback(alias, actor=who)
        except IntegrityError:
            self._tell_rollback(alias, who, began, verified=False)
            raise
        self._tell_rollback(alias, who, began, verified=True)
        return target

    def _tell_rollback(self, alias: str, actor: str, began: float, *, verified: bool) -> None:
        seconds = round(time.monotonic() - began, 3)
        with suppress(PerdureError):  # the rollback is done or refused whatever becomes of this note
            self.archive.record(ROLLBACK_TIME, {"alias": alias, "seconds": seconds, "verified": verified}, actor=actor)

    def history(self, alias: str) -> list[Served]:
        """What served when: every time in which the alias held a version, oldest first."""
        return self.archive.served(alias)

    # Emergencies

    def break_glass(
        self, ref: "str | Version", alias: str, actor: str, reason: str, expires: datetime | timedelta
    ) -> Emergency:
        """Let an alias hold a version without consent: loud, for a week at most, until somebody else reviews it.

        Args:
            ref: Which.
            alias: Such as production.
            actor: Who breaks the glass; a person.
            reason: Why nobody else can be waited for.
            expires: When the version must be approved in the ordinary way, or is taken back: a time, or how long.
        """
        policy = self.settle_policy(actor)
        return self.archive.break_glass(
            self.version(ref), alias, actor=actor, reason=reason, expires=expires, policy=policy.digest
        )

    def review(self, emergency: "int | Emergency", actor: str, comment: str) -> None:
        """Note that somebody other than who broke the glass looked at it; it is not open any more."""
        number = emergency.sequence if isinstance(emergency, Emergency) else emergency
        self.archive.review(number, actor=actor, comment=comment)

    def emergencies(self, *, unreviewed: bool = False) -> list[Emergency]:
        """Every time that the glass was broken, oldest first; or only those that nobody reviewed."""
        return [one for one in self.archive.emergencies() if not (unreviewed and one.reviewer)]

    def end_expired(self, *, actor: str = SYSTEM) -> list[Version]:
        """Take back versions that are served by a broken glass past its time and were not approved since.

        Returns:
            What the aliases hold now.
        """
        policy = self.policy
        return self.archive.end_expired(actor=actor, policy=policy.digest, required=policy.approvers)

    # Canaries

    def start_canary(
        self, ref: "str | Version", alias: str, plan: CanaryPlan | None = None, *, actor: str = ""
    ) -> Canary:
        """Let a candidate answer a first share of an alias's requests; it needs the approvals that a promotion would.

        Args:
            ref: The candidate.
            alias: An alias that holds another version.
            plan: Shares, hold, conditions; the usual ones when not given.
            actor: Who starts it.
        """
        who = actor or current_user()
        policy = self.settle_policy(who)
        return self.archive.start_canary(
            self.version(ref),
            alias,
            plan or CanaryPlan(),
            actor=who,
            policy=policy.digest,
            required=policy.approvers(alias),
        )

    def step_canary(
        self, alias: str, weight: float, *, actor: str = "", reason: str = "", number: int | None = None
    ) -> Canary:
        """Give the candidate of an alias's canary another share of the requests; of that number only, if given."""
        return self.archive.step_canary(alias, weight, actor=actor or current_user(), reason=reason, number=number)

    def end_canary(
        self,
        alias: str,
        event: Literal["promote", "fall back", "stop"],
        *,
        actor: str = "",
        reason: str = "",
        number: int | None = None,
    ) -> Canary:
        """End an alias's canary: promote its candidate, let it fall back, or stop it by hand.

        Args:
            alias: Whose.
            event: How.
            actor: Who ends it.
            reason: Why.
            number: Which canary is meant; whichever runs when not given.
        """
        policy = self.policy
        return self.archive.end_canary(
            alias,
            event,
            actor=actor or current_user(),
            reason=reason,
            policy=policy.digest,
            required=policy.approvers(alias),
            number=number,
        )

    def canaries(self, alias: str | None = None) -> list[Canary]:
        """Every canary of one alias or of all, oldest first."""
        return self.archive.canaries(alias)

    def canary(self, alias: str) -> Canary | None:
        """The canary that an alias has now, if any."""
        found = self.canaries(alias)
        return found[-1] if found and found[-1].running else None
