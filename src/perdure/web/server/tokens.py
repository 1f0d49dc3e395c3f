"""Tokens for programs: 256 random bits, stored as a hash, for a few scopes and a limited time. None can approve."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from perdure.errors import SettingError, UnknownNameError
from perdure.web.server.secrets import digest_secret, new_secret
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store
from perdure.web.server.words import N_, _

READ, REQUEST, OPERATE, KPIS = "read", "request", "operate", "kpis"
GENERATE, METRICS = "generate", "metrics"
SCOPES = {
    READ: N_("look at versions, reports, requests, the policy and the ledger"),
    REQUEST: N_("ask for changes and ask versions questions"),
    OPERATE: N_("promote approved versions and roll back"),
    KPIS: N_("enter KPIs"),
    GENERATE: N_("have versions answer at the gateway"),
    METRICS: N_("read the metrics, as Prometheus does"),
}
PREFIX = "perdure-"
_LABEL_LIMIT = 80
_DAY = 86400.0


@dataclass(frozen=True)
class Token:
    """What is known about a token; never the token itself.

    Attributes:
        id: Its name, to revoke it by.
        name: The account that it acts for, with that account's roles.
        label: What it is for.
        scopes: What it may be used for, within those roles.
        created: When it was made, in seconds since 1970.
        expires: When it ends.
    """

    id: str
    name: str
    label: str
    scopes: frozenset[str]
    created: float
    expires: float


class Tokens:
    """The tokens of one server."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self._store, self._settings = store, settings

    def make(self, name: str, label: str, scopes: Iterable[str], days: int) -> tuple[str, Token]:
        """A new token and what is kept of it.

        Raises:
            SettingError: No label, no scope, or a life out of range.
        """
        chosen, label = frozenset(scopes), " ".join(label.split())
        for scope in sorted(chosen - SCOPES.keys()):
            raise UnknownNameError("scope", scope, SCOPES)
        if not chosen or not 1 <= len(label) <= _LABEL_LIMIT:
            raise SettingError(
                _("A token needs a label of up to {most} characters and a scope.").format(most=_LABEL_LIMIT)
            )
        if not 1 <= days <= self._settings.token_days:
            raise SettingError(_("A token lives 1 to {most} days.").format(most=self._settings.token_days))
        secret, now = new_secret(PREFIX), self._store.clock()
        made = Token(secrets.token_hex(8), name, label, chosen, now, now + days * _DAY)
        values = (made.id, digest_secret(secret), name, label, json.dumps(sorted(chosen)), now, made.expires)
        self._store.write("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
        return secret, made

    def holder(self, secret: str) -> Token | None:
        """The token that a secret opens; None if it is unknown, expired or its account disabled."""
        query = "SELECT tokens.* FROM tokens JOIN users USING (name) WHERE hash = ? AND expires > ? AND NOT disabled"
        row = self._store.row(query, digest_secret(secret), self._store.clock())
        return None if row is None else _token(row)

    def of(self, name: str) -> list[Token]:
        """The tokens of an account that have not expired, newest first."""
        query = "SELECT * FROM tokens WHERE name = ? AND expires > ? ORDER BY created DESC"
        return [_token(row) for row in self._store.rows(query, name, self._store.clock())]

    def revoke(self, name: str, identifier: str) -> None:
        """End a token of an account at once."""
        self._store.write("DELETE FROM tokens WHERE name = ? AND id = ?", name, identifier)


def _token(row: dict[str, object]) -> Token:
    scopes = frozenset(json.loads(str(row["scopes"])))
    times = (float(str(row["created"])), float(str(row["expires"])))
    return Token(str(row["id"]), str(row["name"]), str(row["label"]), scopes, *times)
