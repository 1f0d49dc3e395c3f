"""The part of a workspace where people decide: the policy, its gates, consent, comments, roles."""

from pathlib import Path

from perdure.content import write_atomic
from perdure.errors import RefusedError, SettingError, UnknownNameError, WorkspaceError
from perdure.governance import Policy, judge, parse_policy, read_policy
from perdure.measuring import Report
from perdure.workspace.failpoints import Point, reach
from perdure.workspace.opened import Opened
from perdure.workspace.records import Version
from perdure.workspace.rulings import Comment, Consent, PolicyChange, Rejection, Standing

POLICY_FILE = "policy.toml"


class Deciding(Opened):
    """Policy, consent, comments and roles."""

    # The policy

    @property
    def policy(self) -> Policy:
        """The policy in force.

        It is `policy.toml` of the workspace. Once there are members it is the one that an admin set last, and a
        file that was changed by hand counts for nothing.
        """
        return self._policy_and_text()[0]

    def _policy_and_text(self) -> tuple[Policy, str]:
        entered = self.archive.policy_in_force()
        if entered is not None and self.members():
            return parse_policy(entered.text), entered.text
        policy = read_policy(self.folder / POLICY_FILE)
        return policy, (self.folder / POLICY_FILE).read_text(encoding="utf-8")

    def settle_policy(self, actor: str) -> Policy:
        """The policy in force, entered in the ledger first where its file was changed by hand."""
        policy, text = self._policy_and_text()
        entered = self.archive.policy_in_force()
        if entered is None or entered.digest != policy.digest:
            self.archive.put_policy(text, policy.digest, actor=actor, origin="found")
        return policy

    def set_policy(self, text: str, *, actor: str) -> Policy:
        """Put a policy in force; consents under another one count no more.

        Args:
            text: TOML.
            actor: Who sets it; an admin, once there are members.

        Raises:
            SettingError: It is no policy.
            RefusedError: The actor may not.
        """
        policy = parse_policy(text)
        self.archive.check_permitted("policy", actor)
        write_atomic(self.folder / POLICY_FILE, text.encode())
        reach(Point.POLICY_FILE_WRITTEN)
        self.archive.put_policy(text, policy.digest, actor=actor)
        return policy

    def policy_changes(self) -> list[PolicyChange]:
        """Every policy that came into force, oldest first."""
        return self.archive.policy_changes()

    def policy_text(self, digest: str = "") -> str:
        """The TOML text of a policy.

        Args:
            digest: The start of the hash of one that is or was in force; the one in force when not given.

        Raises:
            UnknownNameError: No policy that was in force has it.
        """
        if not digest:
            return self._policy_and_text()[1]
        found = {change.digest: change.text for change in self.policy_changes() if change.digest.startswith(digest)}
        if len(found) != 1:
            raise UnknownNameError("policy", digest, [change.digest[:12] for change in self.policy_changes()])
        return next(iter(found.values()))

    def policy_file_differs(self) -> bool:
        """Whether `policy.toml` was changed by hand and is not in force for it."""
        try:
            return read_policy(self.folder / POLICY_FILE).digest != self.policy.digest
        except SettingError:
            return True

    # Reports and gates

    def report(self, ref: "str | Version") -> Report | None:
        """The latest report of a version; None if it was never measured."""
        found = self.archive.report(self.version(ref))
        return None if found is None else Report.model_validate(found)

    def gate(self, ref: "str | Version") -> Report:
        """The latest report of a version, judged gate by gate by the policy in force.

        Raises:
            WorkspaceError: It was never measured.
        """
        version = self.version(ref)
        report = self.report(version)
        if report is None:
            raise WorkspaceError(f"{version.name} has no report; run perdure measure {version.name} first")
        return judge(report, self.policy)

    # Consent

    def approve(
        self, ref: "str | Version", actor: str, comment: str = "", *, report: str = "", policy: str = ""
    ) -> Standing:
        """Consent to a version, over its manifest, its latest report and the policy in force; how it stands then.

        Args:
            ref: Which.
            actor: Who approves; a person, and not who asked for it or for what it stands on unapproved.
            comment: Their words.
            report: The digest of the report that they saw (`archive.report_digest`); the latest when not given.
            policy: The digest of the policy that they saw (`policy.digest`); the one in force when not given.

        Raises:
            RefusedError: A gate fails, four eyes or a role forbids it, or report or policy changed since.
            WorkspaceError: It was never measured.
        """
        version = self.version(ref)
        if self.archive.report_digest(version) is None:
            self.gate(version)  # says what to do
        in_force = self.settle_policy(actor)
        if policy not in ("", in_force.digest):
            raise RefusedError(f"the policy changed since it was seen (now {in_force.digest[:12]}…)")
        latest = self.archive.report_digest(version) or ""
        if report not in ("", latest):
            raise RefusedError(
                f"the report of {version.name} changed since it was seen (now {latest[:12]}…); look again"
            )
        # Judged is what is then approved, whatever is written meanwhile.
        judged = judge(Report.model_validate(self.archive.stored_report(version, latest)), in_force)
        failed = "; ".join(f"{gate.gate}: {gate.reason}" for gate in judged.verdicts if gate.verdict == "fail")
        if failed:
            raise RefusedError(f"{version.name} fails its gates ({failed}) and cannot be approved")
        self.archive.approve(version, report=latest, policy=in_force.digest, actor=actor, comment=comment)
        return self.standing(version)

    def reject(self, ref: "str | Version", actor: str, reason: str) -> None:
        """Refuse a version, for good reason said; earlier approvals are void, and nothing more is built on it."""
        self.archive.reject(self.version(ref), actor=actor, reason=reason)

    def approvals(self, ref: "str | Version") -> list[Consent]:
        """Every approval of a version, oldest first, each with what voids it now."""
        return self.archive.consents(self.version(ref), policy=self.policy.digest)

    def rejections(self, ref: "str | Version") -> list[Rejection]:
        """Every rejection of a version, oldest first."""
        return self.archive.rejections(self.version(ref))

    def standing(self, ref: "str | Version", alias: str = "production") -> Standing:
        """Whether a version may stand behind an alias: who approved validly, and what is missing."""
        policy = self.policy
        return self.archive.standing(self.version(ref), policy=policy.digest, required=policy.approvers(alias))

    # Comments

    def comment(self, ref: "str | Version", actor: str, text: str) -> None:
        """Write something about a version; it stays."""
        self.archive.comment(self.version(ref), text, actor=actor)

    def comments(self, ref: "str | Version") -> list[Comment]:
        """What was written about a version, oldest first."""
        return self.archive.comments(self.version(ref))

    # Roles

    def members(self) -> dict[str, frozenset[str]]:
        """Everybody who ever had a role, with the roles that they have now; empty for a single local user."""
        return self.archive.members()

    def roles(self, user: str) -> frozenset[str]:
        """The roles that somebody has now."""
        return self.archive.roles(user)

    def grant(self, user: str, role: str, *, by: str) -> None:
        """Give somebody a role: requester, approver, operator, auditor or admin.

        The first member is an admin, whom anybody may name. From then on everybody needs a role for what they do,
        and only admins grant.

        Raises:
            SettingError: There is no such role.
            RefusedError: `by` is no admin, or a program shall decide.
        """
        if not self.members():  # from now on the policy is the one in the ledger
            self.settle_policy(by)
        self.archive.grant(user, role, actor=by)

    def withdraw(self, user: str, role: str, *, by: str) -> None:
        """Take a role from somebody; the last admin stays."""
        self.archive.withdraw(user, role, actor=by)


def read_text(file: Path) -> str:
    """The text of a policy file.

    Raises:
        SettingError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"the policy {file} cannot be read: {error}") from error
