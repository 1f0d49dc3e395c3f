"""Confirmations that it is them: by a password, or anew at the provider for one act, once, for minutes."""

from dataclasses import dataclass

from perdure.content import digest_json
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store


@dataclass(frozen=True)
class Act:
    """What somebody confirms that they want.

    Attributes:
        kind: What is done.
        about: To what exactly: an approval's version, report and policy.
    """

    kind: str
    about: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The act as it is kept; any other version, report or policy has another."""
        return digest_json([self.kind, *self.about])


def approving(version: str, report: str, policy: str) -> Act:
    """Consent to a version over a report and a policy, by their hashes."""
    return Act("approve", (version, report, policy))


def breaking(version: str, alias: str) -> Act:
    """Letting an alias hold a version without consent."""
    return Act("break-glass", (version, alias))


GOVERNING = Act("govern")
MAKING_A_TOKEN = Act("token")


class Confirmations:
    """Acts that somebody confirmed at the provider and has not yet carried out."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self._store = store
        self._seconds = settings.oidc.confirm_seconds if settings.oidc else 0.0

    def grant(self, login: str, key: str) -> None:
        """Let a login carry out an act, once."""
        now = self._store.clock()
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM confirmations WHERE expires <= ?", (now,))
            connection.execute(
                "INSERT OR REPLACE INTO confirmations VALUES (?, ?, ?)", (login, key, now + self._seconds)
            )

    def use(self, login: str, act: Act) -> bool:
        """Whether a login may carry out an act; from now on it no longer may."""
        query = "DELETE FROM confirmations WHERE login = ? AND act = ? AND expires > ?"
        return self._store.write(query, login, act.key, self._store.clock()) == 1

    def until(self, login: str, act: Act) -> float | None:
        """Until when a login may carry out an act; None if it may not."""
        query = "SELECT expires FROM confirmations WHERE login = ? AND act = ? AND expires > ?"
        row = self._store.row(query, login, act.key, self._store.clock())
        return None if row is None else float(row["expires"])
