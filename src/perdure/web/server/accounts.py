"""Accounts: who may sign in. No one signs up: a first code opens the server, later ones come from an administrator."""

import threading
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from perdure.errors import RefusedError, SettingError, WorkspaceError
from perdure.web.server.secrets import digest_secret, new_secret
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store
from perdure.web.server.words import LANGUAGES, _
from perdure.workspace.ledger import checked_actor
from perdure.workspace.people import SYSTEM, is_machine, same

NAME_LIMIT = 64
PASSWORD_LIMIT = 512
_HOUR = 3600.0
_SOMEBODY = "SELECT 1 FROM users WHERE password IS NOT NULL OR name IN (SELECT name FROM identities)"


@dataclass(frozen=True)
class Account:
    """Somebody who may sign in.

    Attributes:
        name: Who they are, as the ledger will name them.
        language: The language that they chose; empty for the browser's.
        ready: Whether they have set a password.
        disabled: Whether signing in is forbidden.
    """

    name: str
    language: str
    ready: bool
    disabled: bool


class Accounts:
    """The accounts of one server."""

    def __init__(self, store: Store, settings: ServerSettings, hasher: PasswordHasher | None = None) -> None:
        self._store, self._settings = store, settings
        self._hasher = hasher or PasswordHasher()
        # Each hash takes 64 MiB: more at once would let strangers use up the memory.
        self._room = threading.BoundedSemaphore(2)
        self._nobody = self._hash(new_secret())

    def all(self) -> list[Account]:
        """Every account, by name."""
        return [_account(row) for row in self._store.rows("SELECT * FROM users ORDER BY folded")]

    def get(self, name: str) -> Account | None:
        """The account of a name; None if there is none."""
        row = self._store.row("SELECT * FROM users WHERE name = ?", name)
        return None if row is None else _account(row)

    def empty(self) -> bool:
        """Whether nobody can sign in yet."""
        return self._store.row(_SOMEBODY) is None

    # Coming in

    def setup_code(self) -> str:
        """A new code for the first account; the one before no longer counts.

        Raises:
            RefusedError: There is an account already.
        """
        if not self.empty():
            raise RefusedError("there is an account already; an administrator adds others")
        code = new_secret("setup-")
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM invitations WHERE name IS NULL")
            values = (digest_secret(code), None, self._expiry())
            connection.execute("INSERT INTO invitations VALUES (?, ?, ?)", values)
        return code

    def invite(self, name: str) -> tuple[str, str]:
        """The name as it is kept and a code with which that person sets a password, once.

        An account that exists keeps its old password until the code is used.
        """
        name = checked_name(name)
        code = new_secret("invite-")
        with self._store.transaction() as connection:
            row = connection.execute("SELECT name FROM users WHERE folded = ?", (name.casefold(),)).fetchone()
            if row is not None:
                name = row["name"]
            else:
                values = (name, name.casefold(), self._store.clock())
                connection.execute("INSERT INTO users (name, folded, created) VALUES (?, ?, ?)", values)
            connection.execute("DELETE FROM invitations WHERE name = ?", (name,))
            connection.execute("INSERT INTO invitations VALUES (?, ?, ?)", (digest_secret(code), name, self._expiry()))
        return name, code

    def set_up(self, code: str, name: str, password: str) -> str:
        """The first account, opened with the code that the server printed; its name.

        Raises:
            RefusedError: The code is wrong, used or too old.
            SettingError: The name or the password will not do.
        """
        name = checked_name(name)
        hashed = self._hash(self.checked_password(password, name))
        with self._store.transaction() as connection:
            query = "DELETE FROM invitations WHERE hash = ? AND name IS NULL AND expires > ?"
            used = connection.execute(query, (digest_secret(code), self._store.clock())).rowcount
            taken = connection.execute(_SOMEBODY).fetchone()
            if used != 1 or taken:
                raise RefusedError(_("The code is not right, was used already, or is too old."))
            values = (name, name.casefold(), hashed, self._store.clock())
            connection.execute("INSERT INTO users (name, folded, password, created) VALUES (?, ?, ?, ?)", values)
        return name

    def join(self, code: str, name: str, password: str) -> str:
        """The account of somebody who was invited, with the password that they chose; its name.

        Raises:
            RefusedError: The code is wrong, used, too old or for somebody else.
            SettingError: The password will not do.
        """
        known = self._store.row("SELECT name FROM users WHERE folded = ?", checked_name(name).casefold())
        hashed = self._hash(self.checked_password(password, name))
        with self._store.transaction() as connection:
            query = "DELETE FROM invitations WHERE hash = ? AND name = ? AND expires > ?"
            own = known["name"] if known else ""
            if connection.execute(query, (digest_secret(code), own, self._store.clock())).rowcount != 1:
                raise RefusedError(_("The name or the code is not right, or the code was used already or is too old."))
            connection.execute("UPDATE users SET password = ?, disabled = 0 WHERE name = ?", (hashed, own))
            connection.execute("DELETE FROM logins WHERE name = ?", (own,))
        return str(own)

    def invited(self, code: str, name: str) -> tuple[str, str]:
        """The account and the stored hash of an invitation that is still open; it is not used up.

        Raises:
            RefusedError: The code is wrong, used, too old or for somebody else.
        """
        query = (
            "SELECT hash, name FROM invitations JOIN users USING (name) WHERE hash = ? AND folded = ? AND expires > ?"
        )
        chosen = (digest_secret(code), checked_name(name).casefold(), self._store.clock())
        row = self._store.row(query, *chosen)
        if row is None:
            raise RefusedError(_("The name or the code is not right, or the code was used already or is too old."))
        return str(row["name"]), str(row["hash"])

    # Passwords

    def checked_password(self, password: str, name: str) -> str:
        """The password, if it may be one.

        Raises:
            SettingError: It is too short, too long, one letter over and over, or holds the name.
        """
        least = self._settings.password_length
        if not least <= len(password) <= PASSWORD_LIMIT:
            words = _("A password has {least} to {most} characters.")
            raise SettingError(words.format(least=least, most=PASSWORD_LIMIT))
        if len(set(password)) < 5 or name.casefold() in password.casefold():
            raise SettingError(_("A password has at least five different characters and does not hold the name."))
        return password

    def right(self, name: str, password: str) -> Account | None:
        """The account, if this is its password and it may sign in. An unknown name takes as long as a known one."""
        folded = name.strip()[:NAME_LIMIT].casefold()
        row = self._store.row("SELECT * FROM users WHERE folded = ?", folded)
        stored = row["password"] if row and row["password"] else self._nobody
        matches = self._matches(stored, password[: PASSWORD_LIMIT + 1])
        if row is None or not row["password"] or not matches or row["disabled"]:
            return None
        if self._hasher.check_needs_rehash(stored):
            self._store.write("UPDATE users SET password = ? WHERE name = ?", self._hash(password), row["name"])
        return _account(row)

    def change_password(self, name: str, password: str) -> None:
        """Give the account another password; every login of it ends."""
        hashed = self._hash(self.checked_password(password, name))
        with self._store.transaction() as connection:
            connection.execute("UPDATE users SET password = ? WHERE name = ?", (hashed, name))
            connection.execute("DELETE FROM logins WHERE name = ?", (name,))

    # Changing

    def disable(self, name: str, *, disabled: bool) -> None:
        """Forbid signing in, or allow it again; what was open is closed, tokens included.

        Raises:
            WorkspaceError: There is no such account.
        """
        with self._store.transaction() as connection:
            values = (int(disabled), name)
            if connection.execute("UPDATE users SET disabled = ? WHERE name = ?", values).rowcount != 1:
                raise WorkspaceError(f"there is no account {name!r}")
            if disabled:
                for table in ("logins", "tokens", "invitations"):
                    connection.execute(f"DELETE FROM {table} WHERE name = ?", (name,))  # noqa: S608 - own names

    def speak(self, name: str, language: str) -> None:
        """Remember the language that the user chose; empty for the browser's."""
        chosen = language if language in LANGUAGES else ""
        self._store.write("UPDATE users SET language = ? WHERE name = ?", chosen, name)

    def _expiry(self) -> float:
        return self._store.clock() + self._settings.invitation_hours * _HOUR

    def _hash(self, password: str) -> str:
        with self._room:
            return self._hasher.hash(password.encode("utf-8", "surrogatepass"))

    def _matches(self, stored: str, password: str) -> bool:
        with self._room:
            try:
                return self._hasher.verify(stored, password.encode("utf-8", "surrogatepass"))
            except (VerificationError, InvalidHashError):
                return False


def checked_name(name: str) -> str:
    """The name in its one spelling, if an account may have it.

    Raises:
        SettingError: Empty, too long, or with characters that cannot be seen.
    """
    checked = checked_actor(name)
    if len(checked) > NAME_LIMIT or "/" in checked:
        raise SettingError(_("A name has 1 to {most} characters and no slash.").format(most=NAME_LIMIT))
    # The ledger knows these as what perdure does by itself and as programs.
    if is_machine(checked) or same(checked, SYSTEM):
        raise SettingError(_("The name {name} is not for a person.").format(name=checked))
    return checked


def _account(row: dict[str, object]) -> Account:
    return Account(str(row["name"]), str(row["language"]), row["password"] is not None, bool(row["disabled"]))
