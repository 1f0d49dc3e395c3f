"""The part of an archive that brings a candidate in step by step."""

from perdure.errors import SettingError, WorkspaceError
from perdure.governance.canary import CanaryPlan
from perdure.workspace import aliases, canaries
from perdure.workspace.database import translated
from perdure.workspace.governing import words
from perdure.workspace.ledger import checked_actor
from perdure.workspace.records import Version
from perdure.workspace.releases import Canary
from perdure.workspace.releasing import Releasing

ENDS = {"promote": 1.0, "fall back": 0.0, "stop": 0.0}
"""How a canary ends, with the candidate's share from then on."""


class Canarying(Releasing):
    """Canaries."""

    def start_canary(
        self, candidate: Version, alias: str, plan: CanaryPlan, *, actor: str, policy: str, required: int | None = None
    ) -> Canary:
        """Let a candidate answer the first share of an alias's requests.

        Args:
            candidate: Which; it needs the approvals that a promotion would.
            alias: An alias that holds another version.
            plan: Shares, hold, conditions.
            actor: Who starts it.
            policy: The digest of the policy in force.
            required: How many different people must approve; as for `promote`.

        Raises:
            RefusedError: Too few valid approvals.
            WorkspaceError: The alias holds nothing, or the candidate already, or has a canary.
        """
        actor, alias, candidate = checked_actor(actor), aliases.checked_alias(alias), self._own(candidate)
        with self._writing("canary", actor), self._database.transaction() as connection:
            held = aliases.heads(connection).get(alias)
            if held in (None, candidate.id):
                what = "holds nothing to compare with" if held is None else f"holds {candidate.name} already"
                raise WorkspaceError(f"{alias!r} {what}; a canary needs two versions")
            candidate.read_manifest()
            self._need_consent(connection, candidate, alias, policy, required)
            canaries.start(connection, alias, (str(held), candidate.id), plan, actor)
            return canaries.canaries(connection, alias)[-1]

    def step_canary(
        self, alias: str, weight: float, *, actor: str, reason: str = "", number: int | None = None
    ) -> Canary:
        """Give the candidate of an alias's canary another share of the requests.

        Args:
            alias: Whose.
            weight: The share.
            actor: Who does it.
            reason: Why.
            number: Which canary is meant; whichever runs when not given.
        """
        if not 0 < weight < 1:
            raise SettingError(f"a canary's share lies between 0 and 1; given {weight:g}")
        return self._go_on(alias, "step", weight, actor, reason, number=number)

    def end_canary(
        self,
        alias: str,
        event: str,
        *,
        actor: str,
        reason: str = "",
        policy: str = "",
        required: int | None = None,
        number: int | None = None,
    ) -> Canary:
        """End an alias's canary: `promote` its candidate, let it `fall back`, or `stop` it by hand.

        Args:
            alias: Whose.
            event: How.
            actor: Who ends it.
            reason: Why.
            policy: The digest of the policy in force, for a promotion.
            required: How many different people must have approved, for a promotion.
            number: Which canary is meant; whichever runs when not given.

        Raises:
            SettingError: No such end.
            WorkspaceError: No canary runs, or another than the one that is meant.
            RefusedError: It shall be promoted, and its approvals no longer hold.
        """
        if event not in ENDS:
            raise SettingError(f"a canary ends with {', '.join(ENDS)}; given {event!r}")
        return self._go_on(alias, event, ENDS[event], actor, reason, policy=policy, required=required, number=number)

    def _go_on(
        self,
        alias: str,
        event: str,
        weight: float,
        actor: str,
        reason: str,
        *,
        policy: str = "",
        required: int | None = None,
        number: int | None = None,
    ) -> Canary:
        actor, alias = checked_actor(actor), aliases.checked_alias(alias)
        with self._writing("canary", actor), self._database.transaction() as connection:
            canary = canaries.running(connection, alias)
            if canary is None:
                raise WorkspaceError(f"{alias!r} has no canary that runs; see its history")
            if number not in (None, canary.number):
                raise WorkspaceError(f"{alias!r} has canary {canary.number} now; canary {number} ended")
            candidate = self._by_id(canary.candidate)
            if event == "promote":
                self._need_consent(connection, candidate, alias, policy, required)
            canaries.go_on(connection, canary, event, weight=weight, reason=words(reason), actor=actor)
            if event == "promote":
                aliases.move(connection, alias, candidate.id, kind="promote", actor=actor, policy=policy or None)
            return canaries.canaries(connection, alias)[-1]

    @translated("reading the canaries")
    def canaries(self, alias: str | None = None) -> list[Canary]:
        """Every canary of one alias or of all, oldest first."""
        return canaries.canaries(self._checked(), alias)
