"""Who may use a route: said where the route is declared, and never left out."""

from dataclasses import dataclass
from typing import Literal

from perdure.errors import PerdureError
from perdure.web.server.tokens import KPIS, METRICS, OPERATE, READ, REQUEST
from perdure.web.server.told import told
from perdure.web.server.words import _
from perdure.workspace.schema import ROLES

REQUESTER, APPROVER, OPERATOR, AUDITOR, ADMIN = ROLES
MEMBER = frozenset(ROLES)

Way = Literal["stranger", "login", "token"]


@dataclass(frozen=True)
class Access:
    """Who may use a route.

    Attributes:
        roles: Any one of them is enough; empty where every signed-in account may, None where everybody may.
        scope: What a token must be for; None where no program may.
        upload: Whether its body may be as large as a file.
    """

    roles: frozenset[str] | None
    scope: str | None = None
    upload: bool = False


ANYBODY = Access(None)
ACCOUNT = Access(frozenset())
SELF = Access(frozenset(), READ)
SEE = Access(MEMBER, READ)
COMMENT = Access(MEMBER)
ASK = Access(frozenset({REQUESTER, APPROVER, OPERATOR}), REQUEST)
CHANGE = Access(frozenset({REQUESTER}), REQUEST)
UPLOAD = Access(frozenset({REQUESTER}), REQUEST, upload=True)
COMPARE = Access(MEMBER, READ)
MEASURE = Access(frozenset({REQUESTER, APPROVER, OPERATOR}), REQUEST)
DECIDE = Access(frozenset({APPROVER}))
RELEASE = Access(frozenset({OPERATOR}), OPERATE)
BREAK = Access(frozenset({OPERATOR}))
AUDIT = Access(frozenset({AUDITOR, ADMIN}), READ)
GOVERN = Access(frozenset({ADMIN}))
ENTER = Access(MEMBER, KPIS)
ENTER_FILE = Access(MEMBER, KPIS, upload=True)
SCRAPE = Access(frozenset({AUDITOR, OPERATOR}), METRICS)


@dataclass(frozen=True)
class Identity:
    """Who makes a request.

    Attributes:
        way: As what: a stranger, somebody who signed in, or a program with somebody's token.
        name: The account; empty for a stranger.
        roles: The roles that the account has now.
        scopes: What the token is for; empty without one.
        language: The language that the account chose.
        session: The secret of the cookie, from which form tokens are made; empty without one.
    """

    way: Way = "stranger"
    name: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    language: str = ""
    session: str = ""

    def may(self, access: Access) -> bool:
        """Whether this is enough for a route."""
        return self.lacks(access) == ""

    def lacks(self, access: Access) -> str:
        """What is missing for a route, in words; empty when nothing is."""
        if access.roles is None:
            return ""
        if self.way == "stranger":
            return _("sign in first")
        if self.way == "token" and access.scope is None:
            return _("a program with a token cannot do this: a person must")
        if self.way == "token" and access.scope not in self.scopes:
            return _("the token is not for {scope}").format(scope=repr(access.scope))
        if access.roles and not access.roles & self.roles:
            return _("that takes the role {roles}").format(roles=_(" or ").join(map(told, sorted(access.roles))))
        return ""


class DeniedError(PerdureError):
    """A request that is refused before it reaches its route.

    Attributes:
        status: The HTTP status.
    """

    exit_code = 6

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


__all__ = [
    "ACCOUNT",
    "ANYBODY",
    "ASK",
    "AUDIT",
    "BREAK",
    "CHANGE",
    "COMMENT",
    "COMPARE",
    "DECIDE",
    "ENTER",
    "ENTER_FILE",
    "GOVERN",
    "MEASURE",
    "MEMBER",
]
__all__ += [
    "OPERATE",
    "READ",
    "RELEASE",
    "REQUEST",
    "SCRAPE",
    "SEE",
    "SELF",
    "UPLOAD",
    "Access",
    "DeniedError",
    "Identity",
]
