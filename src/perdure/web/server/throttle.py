"""Limits on how often: wrong passwords, remembered across restarts, and requests of one address."""

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store


class WrongPasswords:
    """Counts wrong passwords by account and by address."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self._store, self._settings = store, settings

    def must_wait(self, name: str, address: str) -> bool:
        """Whether no password of this account, or from this address, is looked at now."""
        since = self._store.clock() - 60 * self._settings.wait_minutes
        limits = {_of_account(name): self._settings.tries, _of_address(address): self._settings.tries_per_address}
        return any(self._count(key, since) >= limit for key, limit in limits.items())

    def begin(self, name: str, address: str) -> tuple[int, ...] | None:
        """Count a password as wrong before it is looked at: many at once gain nothing. None where one must wait."""
        with self._store.transaction():
            return None if self.must_wait(name, address) else self._counted(name, address)

    def note(self, name: str, address: str) -> None:
        """Remember a wrong password."""
        with self._store.transaction():
            self._counted(name, address)

    def forget(self, name: str, counted: tuple[int, ...]) -> None:
        """Forget the wrong passwords of an account that gave the right one, and what was counted before it was seen."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM failures WHERE key = ?", (_of_account(name),))
            connection.executemany("DELETE FROM failures WHERE rowid = ?", [(row,) for row in counted])

    def _counted(self, name: str, address: str) -> tuple[int, ...]:
        """The rows of one more wrong password, within the caller's transaction."""
        connection, now = self._store.connection(), self._store.clock()
        connection.execute("DELETE FROM failures WHERE time < ?", (now - 60 * self._settings.wait_minutes,))
        keys = (_of_account(name), _of_address(address))
        query = "INSERT INTO failures VALUES (?, ?) RETURNING rowid"
        return tuple(int(connection.execute(query, (key, now)).fetchone()[0]) for key in keys)

    def _count(self, key: str, since: float) -> int:
        row = self._store.row("SELECT COUNT(*) AS found FROM failures WHERE key = ? AND time >= ?", key, since)
        return int(row["found"]) if row else 0


def _of_account(name: str) -> str:
    return f"account {name.strip().casefold()[:100]}"


def _of_address(address: str) -> str:
    return f"address {address[:60]}"


class Pace:
    """Counts requests by address; what is over the limit is refused."""

    def __init__(self, settings: ServerSettings) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._all = RateLimitItemPerMinute(settings.requests_per_minute)
        self._writes = RateLimitItemPerMinute(settings.writes_per_minute)

    def allows(self, address: str, *, writes: bool) -> bool:
        """Count one request; whether it is within the limits."""
        if writes and not self._limiter.hit(self._writes, "writes", address):
            return False
        return self._limiter.hit(self._all, "all", address)
