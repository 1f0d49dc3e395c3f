"""The part of an archive that holds reports and what people decide over them."""

from collections.abc import Mapping
from typing import Any

from perdure.content import canonical_json
from perdure.errors import IntegrityError, RefusedError, SettingError
from perdure.workspace import canaries, decisions, ledger, verify
from perdure.workspace.database import translated
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.governing import Governing, words
from perdure.workspace.ledger import checked_actor, plain_json
from perdure.workspace.records import Version
from perdure.workspace.rulings import Approval, Consent, Rejection, Standing


class Consenting(Governing):
    """Reports, approvals and rejections."""

    def put_report(self, version: Version, report: Mapping[str, Any], *, actor: str) -> str:
        """Store a report as the version's latest; its digest. An approval of an earlier one is void then."""
        actor, data = checked_actor(actor), canonical_json(plain_json(report)).encode()
        version = self._own(version)
        with self._writing("report", actor):
            stored = self._store.put(data, "report")
            reach(Point.REPORT_STORED)
            with self._database.transaction() as connection:
                if decisions.latest_report(connection, version.id) != stored.hash:
                    known = self._store.listed(stored.hash) is not None
                    self._store.enter(connection, [] if known else [stored], None)
                    values = {"version": version.id, "digest": stored.hash}
                    ledger.append_row(connection, "reports", values, action="report", actor=actor)
        return stored.hash

    @translated("reading a report")
    def report_digest(self, version: Version) -> str | None:
        """The digest of the version's latest report; None if it has none."""
        return decisions.latest_report(self._checked(), version.id)

    @translated("reading a report")
    def report(self, version: Version) -> dict[str, Any] | None:
        """The version's latest report; None if it has none.

        Raises:
            IntegrityError: The stored report is missing or damaged.
        """
        digest = decisions.latest_report(self._checked(), version.id)
        return None if digest is None else self._read_report(version, digest)

    def approve(self, version: Version, *, report: str, policy: str, actor: str, comment: str = "") -> None:
        """Approve the version over its latest report and a policy; any change of the three voids it.

        Args:
            version: Which.
            report: The digest of the report that the approver saw.
            policy: The digest of the policy.
            actor: Who approves; a person, and not who asked for it or for what it stands on.
            comment: Their words.

        Raises:
            RefusedError: The actor asked for the version, or the report is not its latest.
        """
        actor, version = checked_actor(actor), self._own(version)
        if not policy:
            raise SettingError("an approval needs the digest of the policy it was judged by; given none")
        values = {"version": version.id, "decision": "approved", "report": report, "policy": policy}
        with self._writing("approve", actor), self._database.transaction() as connection:
            latest = decisions.latest_report(connection, version.id)
            if latest is None or latest != report:
                has = f"its latest is {latest[:12]}…" if latest else "it has none"
                raise RefusedError(f"{version.name} cannot be approved over report {report[:12]}…: {has}")
            self._read_report(version, report)
            decisions.check_four_eyes(connection, version.id, actor)
            decisions.decide(connection, {**values, "comment": words(comment)}, actor)

    def reject(self, version: Version, *, actor: str, reason: str) -> None:
        """Reject the version; earlier approvals are void, later ones count again. Its canary falls back."""
        actor, version = checked_actor(actor), self._own(version)
        if not reason.strip():
            raise SettingError("a rejection needs its reason, so that the requester can act on it; given none")
        if version.parent is None:
            raise RefusedError(f"{version.name} is the base, on which every version stands, and cannot be rejected")
        with self._writing("reject", actor), self._database.transaction() as connection:
            latest = decisions.latest_report(connection, version.id)
            values = {"version": version.id, "decision": "rejected", "report": latest, "policy": None}
            decisions.decide(connection, {**values, "comment": words(reason)}, actor)
            for canary in canaries.canaries(connection):
                if canary.running and canary.candidate == version.id:
                    canaries.go_on(connection, canary, "fall back", weight=0.0, reason="rejected", actor=actor)

    @translated("reading approvals")
    def approval(self, version: Version, *, policy: str) -> Approval | None:
        """The approval of exactly this version, its latest report and this policy, if none rejected it since."""
        return decisions.valid_approval(self._checked(), version.id, policy)

    @translated("reading approvals")
    def consents(self, version: Version, *, policy: str) -> list[Consent]:
        """Every approval of a version, oldest first, with what voids it under its latest report and this policy."""
        return decisions.consents(self._checked(), version.id, policy)

    @translated("reading approvals")
    def standing(self, version: Version, *, policy: str, required: int) -> Standing:
        """Whether so many different people approve of a version, as it was measured, under this policy."""
        return decisions.standing(self._checked(), version.id, policy, 0 if version.parent is None else required)

    @translated("reading approvals")
    def rejections(self, version: Version) -> list[Rejection]:
        """Every rejection of a version, oldest first."""
        return decisions.rejections(self._checked(), version.id)

    def _read_report(self, version: Version, digest: str) -> dict[str, Any]:
        try:
            return verify.parsed(self._store.read(digest))
        except IntegrityError as error:
            raise IntegrityError(f"{version.name}, its report: {error}") from error
