"""Whose identity at a provider opens which account. Nobody signs up: a code or an administrator's word links them."""

import sqlite3

from perdure.errors import RefusedError, SettingError, WorkspaceError
from perdure.web.server.oidc.verifying import Evidence, folded
from perdure.web.server.store import Store
from perdure.web.server.words import _

_LONGEST = 254


class Identities:
    """Identities at the provider, at most one for an account, each for one account alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def holder(self, evidence: Evidence) -> str | None:
        """The account that an identity opens; None if it is not known."""
        query = "SELECT name FROM identities WHERE issuer = ? AND subject = ?"
        row = self._store.row(query, evidence.issuer, evidence.subject)
        return None if row is None else str(row["name"])

    def linked(self, issuer: str) -> frozenset[str]:
        """The accounts that an identity at this provider opens."""
        rows = self._store.rows("SELECT name FROM identities WHERE issuer = ?", issuer)
        return frozenset(str(row["name"]) for row in rows)

    def expected(self) -> dict[str, str]:
        """From accounts to the addresses with which the first sign-in is awaited."""
        return {str(row["name"]): str(row["person"]) for row in self._store.rows("SELECT * FROM expected")}

    def expect(self, name: str, person: str) -> None:
        """Have whoever the provider knows under this address open the account; empty to await nobody.

        Raises:
            SettingError: It is no such address, or that of another account.
            WorkspaceError: There is no such account.
        """
        person = folded(person)
        if len(person) > _LONGEST or not person.isprintable():
            raise SettingError(_("An address at the provider has 1 to {most} characters.").format(most=_LONGEST))
        with self._store.transaction() as connection:
            if connection.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone() is None:
                raise WorkspaceError(f"there is no account {name!r}")
            connection.execute("DELETE FROM expected WHERE name = ?", (name,))
            if connection.execute("SELECT 1 FROM expected WHERE person = ?", (person,)).fetchone():
                raise SettingError(_("That address was given to another account. An address opens one."))
            if person:
                connection.execute("INSERT INTO expected VALUES (?, ?)", (person, name))

    def link_expected(self, evidence: Evidence) -> str:
        """Link an identity that comes for the first time to the account that awaits its address; the account.

        The address counts once: whoever has it later, at the provider, does not come in by it.

        Raises:
            RefusedError: No account awaits it.
        """
        with self._store.transaction() as connection:
            query = "SELECT name FROM expected JOIN users USING (name) WHERE person = ? AND NOT disabled"
            row = connection.execute(query, (evidence.person,)).fetchone() if evidence.person else None
            if row is None or _linked(connection, evidence.issuer, row["name"]):
                raise RefusedError(_unknown(evidence))
            _link(connection, evidence, row["name"])
        return str(row["name"])

    def link_invited(self, evidence: Evidence, name: str, invitation: str) -> None:
        """Link an identity to the account of an invitation, which is used up; every login of the account ends.

        Raises:
            RefusedError: The identity is another account's, or not the one that is awaited; the invitation is over.
        """
        with self._store.transaction() as connection:
            if self._other(connection, evidence, name):
                raise RefusedError(_("You signed in at the provider as somebody who has another account here."))
            awaited = connection.execute("SELECT person FROM expected WHERE name = ?", (name,)).fetchone()
            if awaited is not None and awaited["person"] != evidence.person:
                words = _("The account {name} is for another person at the provider. Sign in there as that person.")
                raise RefusedError(words.format(name=name))
            query = "DELETE FROM invitations WHERE hash = ? AND name = ? AND expires > ?"
            if connection.execute(query, (invitation, name, self._store.clock())).rowcount != 1:
                raise RefusedError(_("The code was used already or is too old. Ask an administrator for another."))
            connection.execute("UPDATE users SET disabled = 0 WHERE name = ?", (name,))
            connection.execute("DELETE FROM logins WHERE name = ?", (name,))
            _link(connection, evidence, name)

    def unlink(self, name: str) -> bool:
        """Have no identity open an account, and end its logins; whether one did."""
        with self._store.transaction() as connection:
            found = connection.execute("DELETE FROM identities WHERE name = ?", (name,)).rowcount
            if found:
                connection.execute("DELETE FROM logins WHERE name = ?", (name,))
        return bool(found)

    def _other(self, connection: sqlite3.Connection, evidence: Evidence, name: str) -> bool:
        query = "SELECT 1 FROM identities WHERE issuer = ? AND subject = ? AND name <> ?"
        return connection.execute(query, (evidence.issuer, evidence.subject, name)).fetchone() is not None


def _linked(connection: sqlite3.Connection, issuer: str, name: str) -> bool:
    query = "SELECT 1 FROM identities WHERE issuer = ? AND name = ?"
    return connection.execute(query, (issuer, name)).fetchone() is not None


def _link(connection: sqlite3.Connection, evidence: Evidence, name: str) -> None:
    """Have this identity alone open the account; one at a provider of before no longer does."""
    connection.execute("DELETE FROM identities WHERE name = ?", (name,))
    connection.execute("INSERT INTO identities VALUES (?, ?, ?)", (evidence.issuer, evidence.subject, name))
    connection.execute("DELETE FROM expected WHERE name = ?", (name,))


def _unknown(evidence: Evidence) -> str:
    if not evidence.person:
        return _(
            "No account here belongs to you yet, and the provider names no address of yours that it verified. "
            "Ask an administrator for an invitation and use its code first."
        )
    return _(
        "No account here belongs to you yet, and nobody signs up. Ask an administrator for an invitation and use its "
        "code first."
    )
