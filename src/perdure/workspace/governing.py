"""The part of an archive that says who may do what under which policy, and what people write about versions."""

from typing import Literal

from perdure.errors import SettingError
from perdure.workspace import people, policies
from perdure.workspace.contents import Contents
from perdure.workspace.database import translated
from perdure.workspace.ledger import append_row, checked_actor, plain_json
from perdure.workspace.records import Version
from perdure.workspace.rows import rows_about
from perdure.workspace.rulings import Comment, PolicyChange

Origin = Literal["set", "found"]
"""Whether somebody set a policy, or it was found in a file that was changed by hand."""


class Governing(Contents):
    """Members, policies and comments."""

    @translated("reading the members")
    def members(self) -> dict[str, frozenset[str]]:
        """Everybody who ever had a role, with the roles that they have now; empty for a single local user."""
        return people.members(self._checked())

    @translated("reading the members")
    def roles(self, actor: str) -> frozenset[str]:
        """The roles that somebody has now."""
        return people.roles_of(self._checked(), checked_actor(actor))

    @translated("reading the members")
    def check_permitted(self, action: str, actor: str) -> None:
        """Refuse an actor whose roles do not allow an action.

        Raises:
            RefusedError: Says which role it takes, and who can grant it.
        """
        people.check_permitted(self._checked(), action, checked_actor(actor))

    def grant(self, member: str, role: str, *, actor: str) -> None:
        """Give somebody a role; the first member must be an admin, and may be named by anybody.

        Raises:
            SettingError: There is no such role.
            RefusedError: The actor is no admin, or a program shall decide.
        """
        self._change_role(member, role, "grant", actor)

    def withdraw(self, member: str, role: str, *, actor: str) -> None:
        """Take a role from somebody; the last admin stays."""
        self._change_role(member, role, "withdraw", actor)

    def _change_role(self, member: str, role: str, change: str, actor: str) -> None:
        actor, member = checked_actor(actor), checked_actor(member)
        with self._writing(change, actor), self._database.transaction() as connection:
            people.grant(connection, member, role, change, actor)

    @translated("reading the policies")
    def policy_changes(self) -> list[PolicyChange]:
        """Every policy that came into force, oldest first."""
        return policies.changes(self._checked())

    @translated("reading the policies")
    def policy_in_force(self) -> PolicyChange | None:
        """The policy that was entered last; None where none was."""
        return policies.in_force(self._checked())

    def put_policy(self, text: str, digest: str, *, actor: str, origin: Origin = "set") -> None:
        """Enter the policy in force; consents under another one count no more.

        Args:
            text: The TOML text.
            digest: Of its limits.
            actor: Who set it; for a file that was changed by hand, who was at work when it was found.
            origin: "set" or "found".

        Raises:
            RefusedError: No admin set it; once there are members, nothing is found in a file.
        """
        actor, text = checked_actor(actor), words(text)
        with (
            self._writing("policy" if origin == "set" else "find policy", actor),
            self._database.transaction() as connection,
        ):
            now = policies.in_force(connection)
            if now is not None and now.text != text:
                people.check_permitted(connection, "policy" if people.members(connection) else "find policy", actor)
            policies.enter(connection, text, digest, origin, actor)

    def comment(self, version: Version, text: str, *, actor: str) -> None:
        """Write something about a version; it stays."""
        actor, version = checked_actor(actor), self._own(version)
        if not text.strip():
            raise SettingError("a comment needs words; given none")
        values = {"version": version.id, "text": words(text.strip())}
        with self._writing("comment", actor), self._database.transaction() as connection:
            append_row(connection, "comments", values, action="comment", actor=actor)

    @translated("reading the comments")
    def comments(self, version: Version) -> list[Comment]:
        """What was written about a version, oldest first."""
        rows = rows_about(self._checked(), "comments", "version", version.id)
        return [Comment(version.id, row["actor"], row["text"], row["time"], row["sequence"]) for row in rows]


def words(text: str) -> str:
    """The text, if UTF-8 can say it.

    Raises:
        SettingError: It cannot.
    """
    return str(plain_json({"text": text})["text"])
