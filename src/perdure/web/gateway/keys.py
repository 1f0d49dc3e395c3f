"""Who may ask: programs that hold a token with the scope `generate`."""

from typing import Protocol

from perdure.web.gateway.problems import AnswerError

GENERATE = "generate"
_LONGEST = 512


class Holder(Protocol):
    """Whom a token belongs to."""

    @property
    def name(self) -> str:
        """The account that it acts for."""
        ...

    @property
    def scopes(self) -> frozenset[str]:
        """What it may be used for."""
        ...


class Keys(Protocol):
    """The tokens of a server."""

    def holder(self, secret: str) -> Holder | None:
        """Whom a token belongs to; None if it is unknown, expired or revoked."""
        ...


def bearer(header: bytes | None) -> str:
    """The token in an Authorization header.

    Raises:
        AnswerError: There is none.
    """
    kind, _, token = (header or b"").decode("latin-1").partition(" ")
    if kind.lower() != "bearer" or not 0 < len(token.strip()) <= _LONGEST:
        raise AnswerError(401, "no_token", "give a token with the scope generate: Authorization: Bearer TOKEN")
    return token.strip()


def admitted(keys: Keys, secret: str) -> Holder:
    """Whom a token belongs to, if it may ask.

    Raises:
        AnswerError: The token is not known, or is not for this.
    """
    holder = keys.holder(secret)
    if holder is None:
        raise AnswerError(401, "invalid_token", "this token is not known here, was revoked, or expired")
    if GENERATE not in holder.scopes:
        raise AnswerError(403, "wrong_scope", "this token is not for asking: make one with the scope generate")
    return holder
