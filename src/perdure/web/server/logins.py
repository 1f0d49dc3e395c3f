"""Logins: kept by the server, so that they can be ended; of the cookie only the hash is stored."""

from perdure.web.server.secrets import digest_secret, new_secret
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store

_TOUCH_S = 30.0


class Logins:
    """Who is signed in."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self._store, self._settings = store, settings

    @property
    def cookie(self) -> str:
        """The cookie's name; browsers refuse `__Host-` without TLS, so plain http has one that says what it is."""
        return "__Host-perdure" if self._settings.secure else "perdure-plain-http"

    @property
    def visit_cookie(self) -> str:
        """The name of the cookie from which the forms of strangers have their tokens."""
        return f"{self.cookie}-visit"

    def open(self, name: str) -> str:
        """A new login of an account; the secret for its cookie, which is not stored."""
        secret, now = new_secret(), self._store.clock()
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM logins WHERE created < ? OR seen < ?", self._limits(now))
            connection.execute("INSERT INTO logins VALUES (?, ?, ?, ?)", (digest_secret(secret), name, now, now))
        return secret

    def holder(self, secret: str) -> str | None:
        """The name of the account that a cookie belongs to; None if its login ended or never was."""
        now = self._store.clock()
        query = (
            "SELECT logins.* FROM logins JOIN users USING (name) "
            "WHERE hash = ? AND logins.created >= ? AND seen >= ? AND NOT disabled"
        )
        row = self._store.row(query, digest_secret(secret), *self._limits(now))
        if row is None:
            return None
        if now - row["seen"] > _TOUCH_S:
            self._store.write("UPDATE logins SET seen = ? WHERE hash = ?", now, row["hash"])
        return str(row["name"])

    def close(self, secret: str) -> None:
        """End one login."""
        self._store.write("DELETE FROM logins WHERE hash = ?", digest_secret(secret))

    def close_hashed(self, hashed: str) -> None:
        """End the login with this hash, if there is one."""
        self._store.write("DELETE FROM logins WHERE hash = ?", hashed)

    def close_all(self, name: str) -> None:
        """End every login of an account."""
        self._store.write("DELETE FROM logins WHERE name = ?", name)

    def _limits(self, now: float) -> tuple[float, float]:
        """Since when a login must have been opened, and since when used."""
        return now - 3600 * self._settings.login_hours, now - 60 * self._settings.idle_minutes
