"""The part of an archive that moves aliases between versions: promoted, rolled back, in an emergency."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from perdure.errors import PerdureError, RefusedError, SettingError, WorkspaceError
from perdure.workspace import aliases, canaries, decisions, emergencies
from perdure.workspace.consenting import Consenting
from perdure.workspace.database import translated
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.governing import words
from perdure.workspace.ledger import append_row, checked_actor
from perdure.workspace.records import Version
from perdure.workspace.releases import AliasMove, Served
from perdure.workspace.rulings import Emergency


class Releasing(Consenting):
    """Aliases and what they held when."""

    def promote(
        self,
        version: Version,
        alias: str,
        *,
        actor: str,
        policy: str,
        expected: Version | Literal["any"] | None,
        required: int | None = None,
    ) -> None:
        """Let an alias hold the version, if it holds what the caller thinks.

        If the alias holds the version already, nothing is done, so a repeat after a crash is harmless; where it came by
        a broken glass, the promotion confirms it.

        Args:
            version: Which.
            alias: "production", "staging" or any other name.
            actor: Who promotes.
            policy: The digest of the policy in force, under which approvals count.
            expected: What the alias must hold now; None for nothing yet, "any" not to care.
            required: How many different people must approve; one for production and none for others when not
                given. The base needs nobody: it is what was served before any change.

        Raises:
            RefusedError: Too few valid approvals.
            WorkspaceError: The alias holds something else, or has a canary.
        """
        actor, alias, version = checked_actor(actor), aliases.checked_alias(alias), self._own(version)
        with self._writing("promote", actor), self._database.transaction() as connection:
            held = aliases.heads(connection).get(alias)
            if held == version.id and aliases.moves(connection, alias)[-1].kind != "break glass":
                return
            if expected != "any" and held != (expected.id if isinstance(expected, Version) else None):
                raise WorkspaceError(self._moved(alias, held, expected))
            self._refuse_canary(connection, alias)
            version.read_manifest()
            self._need_consent(connection, version, alias, policy, required)
            aliases.move(connection, alias, version.id, kind="promote", actor=actor, policy=policy or None)

    def rollback(self, alias: str, *, actor: str) -> Version:
        """Give an alias back what it held before, every stored byte of that verified first; the version.

        Repeated rollbacks walk back through the history. Versions rejected since are passed over.

        Raises:
            WorkspaceError: The alias held nothing before.
            IntegrityError: The earlier version is damaged; the alias stays.
        """
        return self._roll_back(alias, actor)

    def _roll_back(self, alias: str, actor: str, held_since: int | None = None) -> Version:
        """Roll back; only if the newest move is in this row of the ledger, where one is given."""
        actor, alias = checked_actor(actor), aliases.checked_alias(alias)
        with self._writing("rollback", actor):
            last = aliases.moves(self._database.connection(), alias)[-1:]
            if held_since is not None and last[0].sequence != held_since:
                return self._by_id(last[0].version)  # somebody was faster
            target = self._by_id(aliases.rollback_target(self._database.connection(), alias))
            self.check_stored(target)
            reach(Point.ROLLBACK_TARGET_VERIFIED)
            with self._database.transaction() as connection:
                self._end_canary(connection, alias, "rolled back", actor)
                aliases.move(connection, alias, target.id, kind="rollback", actor=actor, policy=None)
        return target

    def break_glass(
        self, version: Version, alias: str, *, actor: str, reason: str, expires: datetime | timedelta, policy: str
    ) -> Emergency:
        """Let an alias hold a version without consent: loud, for a week at most, until somebody else reviews it.

        Args:
            version: Which.
            alias: Such as production.
            actor: Who breaks the glass; a person.
            reason: Why nobody else can be waited for.
            expires: When the version must be approved in the ordinary way, or is taken back.
            policy: The digest of the policy in force.

        Raises:
            SettingError: No reason, or no time within a week.
            WorkspaceError: The alias holds it already.
        """
        actor, alias, version = checked_actor(actor), aliases.checked_alias(alias), self._own(version)
        if not reason.strip():
            raise SettingError("breaking the glass needs its reason, for those who review it; given none")
        end = emergencies.checked_expiry(expires, datetime.now(UTC))
        values = {"version": version.id, "alias": alias, "reason": words(reason.strip()), "expires": end}
        with self._writing("emergency", actor):
            self.check_stored(version)
            with self._database.transaction() as connection:
                if aliases.heads(connection).get(alias) == version.id:
                    raise WorkspaceError(f"{alias!r} holds {version.name} already; nothing was done")
                self._end_canary(connection, alias, "the glass was broken", actor)
                append_row(connection, "breaks", values, action="emergency", actor=actor)
                aliases.move(connection, alias, version.id, kind="break glass", actor=actor, policy=policy or None)
                return emergencies.emergencies(connection)[-1]

    def review(self, broken: int, *, actor: str, comment: str) -> None:
        """Note that somebody else looked at an emergency; it is not shown as open any more, and still expires.

        Args:
            broken: Its number (`Emergency.sequence`).
            actor: Who looked at it; not who broke the glass.
            comment: What they think of it.
        """
        actor = checked_actor(actor)
        if not comment.strip():
            raise SettingError("a review needs words; given none")
        with self._writing("review", actor), self._database.transaction() as connection:
            emergencies.review(connection, broken, words(comment.strip()), actor)

    def end_expired(self, *, actor: str, policy: str, required: Callable[[str], int]) -> list[Version]:
        """Take back what a broken glass still lets aliases hold past its time, unless it was approved since.

        Args:
            actor: Who does it.
            policy: The digest of the policy in force.
            required: How many different people must approve for an alias.

        Returns:
            What the aliases hold now.

        Raises:
            PerdureError: None could be taken back, for example since an alias held nothing before.
        """
        connection = self._checked()
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        last = {move.alias: move for move in aliases.moves(connection)}
        done, failed = list[Version](), list[PerdureError]()
        for one in self.emergencies():
            move = last[one.alias]
            if one.expires > now or (move.kind, move.sequence) != ("break glass", one.sequence + 1):
                continue
            if self._stands_by_now(connection, one, policy, required(one.alias)):
                continue
            try:
                done.append(self._roll_back(one.alias, actor, move.sequence))
            except PerdureError as error:  # one that cannot be taken back does not keep the others
                failed.append(error)
        if failed and not done:
            raise failed[0]
        return done

    def _stands_by_now(self, connection: sqlite3.Connection, one: Emergency, policy: str, required: int) -> bool:
        """Whether what broke the glass needs no consent, or got it since: a later policy takes nothing back."""
        return (
            self._by_id(one.version).parent is None
            or decisions.standing(connection, one.version, policy, required).enough
            or decisions.consented_since(connection, one.version, one.sequence, required)
        )

    @translated("reading the emergencies")
    def emergencies(self) -> list[Emergency]:
        """Every time that the glass was broken, oldest first."""
        return emergencies.emergencies(self._checked())

    @translated("reading the aliases")
    def served(self, alias: str) -> list[Served]:
        """What served when: every time in which the alias held a version, oldest first."""
        connection = self._checked()
        history = aliases.moves(connection, alias)
        ends = [move.time for move in history[1:]]
        return [
            Served(move.alias, move.version, move.time, end, move.kind, move.actor, move.policy,
                   decisions.approvers_at(connection, move))
            for move, end in zip(history, [*ends, None], strict=False)
        ]  # fmt: skip

    @translated("reading the aliases")
    def aliases(self) -> dict[str, Version]:
        """What each alias holds now."""
        heads = aliases.heads(self._checked())
        return {alias: self._by_id(held) for alias, held in sorted(heads.items())}

    @translated("reading the aliases")
    def alias_history(self, alias: str) -> list[AliasMove]:
        """Every move of an alias, oldest first."""
        return aliases.moves(self._checked(), alias)

    def _moved(self, alias: str, held: str | None, expected: Version | Literal["any"] | None) -> str:
        now = self._by_id(held).name if held else "nothing"
        thought = expected.name if isinstance(expected, Version) else "nothing"
        return f"{alias!r} holds {now}, not {thought} as expected: it was moved meanwhile. Look at it and repeat"

    def _need_consent(
        self, connection: sqlite3.Connection, version: Version, alias: str, policy: str, required: int | None
    ) -> None:
        usual = 1 if alias == aliases.PRODUCTION else 0
        needed = 0 if version.parent is None else usual if required is None else required
        standing = decisions.standing(connection, version.id, policy, needed)
        if not standing.enough:
            raise RefusedError(
                f"{version.name} has no valid approval over its latest report under this policy "
                f"(it is {version.status}), so {alias} stays as it is: {standing.missing}. Have somebody other than "
                f"{version.requester} approve it"
            )

    def _refuse_canary(self, connection: sqlite3.Connection, alias: str) -> None:
        canary = canaries.running(connection, alias)
        if canary is not None:
            raise WorkspaceError(f"{alias!r} has canary {canary.number} at {canary.weight:.0%}; end it first")

    def _end_canary(self, connection: sqlite3.Connection, alias: str, reason: str, actor: str) -> None:
        canary = canaries.running(connection, alias)
        if canary is not None:
            canaries.go_on(connection, canary, "stop", weight=0.0, reason=reason, actor=actor)
