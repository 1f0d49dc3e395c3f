"""Who may do what: roles that an admin grants and withdraws, each change a row of the ledger.

While nobody was ever granted a role, a workspace belongs to one local user and every person may do everything
that four eyes allow. Programs act under names that begin with `machine:`; they never approve.
"""

import sqlite3
from collections.abc import Mapping

from perdure.errors import RefusedError, SettingError
from perdure.workspace.ledger import append_row, checked_actor
from perdure.workspace.rows import governed_rows
from perdure.workspace.schema import MACHINE, PERSONAL, ROLES

SYSTEM = "perdure"
"""The actor of what perdure does by itself."""

_ANY = frozenset(ROLES)
# From an action to the roles that may do it; what is not named here is for admins.
_ALLOWED: Mapping[str, frozenset[str]] = {
    "commit": frozenset({"requester"}),
    "report": frozenset({"requester", "approver", "operator"}),
    "approve": frozenset({"approver"}),
    "reject": frozenset({"approver"}),
    "promote": frozenset({"operator"}),
    "rollback": frozenset({"operator"}),
    "canary": frozenset({"operator"}),
    "emergency": frozenset({"operator"}),
    "review": frozenset({"approver"}),
    "comment": _ANY,
    "kpi": _ANY,
    "observe": frozenset({"operator"}),
    "policy": frozenset({"admin"}),
    "find policy": _ANY,
    "grant": frozenset({"admin"}),
    "withdraw": frozenset({"admin"}),
}
_BY_PEOPLE = frozenset({"approve", "reject", "policy", "grant", "withdraw", "emergency", "review"})
_BY_ITSELF = frozenset({"collect garbage", "rollback", "observe"})


def machine_name(name: str) -> str:
    """The actor's name of a program, such as that of an access token.

    Raises:
        SettingError: Empty, too long, or with unprintable characters.
    """
    return checked_actor(f"{MACHINE}{checked_actor(name)}")


def is_machine(actor: str) -> bool:
    """Whether the actor is a program."""
    return actor.casefold().startswith(MACHINE)


def same(one: str, other: str) -> bool:
    """Whether two names are of one person: capitals aside."""
    return one.casefold() == other.casefold()


def members(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Everybody who ever had a role, by name, with the roles that they have now."""
    found: dict[str, set[str]] = {}
    for row in governed_rows(connection, "grants"):
        name = next((known for known in found if same(known, row["member"])), row["member"])
        roles = found.setdefault(name, set())
        (roles.add if row["change"] == "grant" else roles.discard)(row["role"])
    return {name: frozenset(roles) for name, roles in sorted(found.items())}


def roles_of(connection: sqlite3.Connection, actor: str) -> frozenset[str]:
    """The roles that somebody has now."""
    found = members(connection).items()
    return next((roles for name, roles in found if same(name, actor)), frozenset())


def check_permitted(connection: sqlite3.Connection, action: str, actor: str) -> None:
    """Refuse an actor who may not do this.

    Raises:
        RefusedError: A program where a person must decide, or nobody granted the role that it takes.
    """
    if action in _BY_PEOPLE and is_machine(actor):
        raise RefusedError(f"{actor} is a program and cannot {_verb(action)}: a person must")
    known = members(connection)
    if not known or (actor == SYSTEM and action in _BY_ITSELF):
        return
    allowed = _ALLOWED.get(action, frozenset({"admin"}))
    has = next((roles for name, roles in known.items() if same(name, actor)), frozenset())
    if not allowed & has:
        holds = f"has the roles {', '.join(sorted(has))}" if has else "has no role"
        raise RefusedError(
            f"{actor} {holds} and cannot {_verb(action)}: that takes {_either(allowed)}. {_admins(known)} can grant it"
        )


def grant(connection: sqlite3.Connection, member: str, role: str, change: str, actor: str) -> None:
    """Write a grant or a withdrawal, within the caller's transaction; nothing where it stands so already.

    Raises:
        SettingError: There is no such role.
        RefusedError: A program shall decide, the first member is no admin, or the last admin would go.
    """
    if role not in ROLES:
        raise SettingError(f"there is no role {role!r}; known: {', '.join(ROLES)}")
    if change == "grant" and role in PERSONAL and is_machine(member):
        raise RefusedError(f"{member} is a program and cannot be {_article(role)}: people decide")
    known = members(connection)
    if not known and role != "admin":
        raise RefusedError(f"the first member must be an admin: grant {member} admin, then {role}")
    name = next((name for name in known if same(name, member)), member)
    has = known.get(name, frozenset())
    if (role in has) == (change == "grant"):
        return
    admins = [other for other, roles in known.items() if "admin" in roles]
    if change == "withdraw" and role == "admin" and admins == [name]:
        raise RefusedError(f"{name} is the last admin and stays one: grant somebody else admin first")
    append_row(connection, "grants", {"member": name, "role": role, "change": change}, action=change, actor=actor)


def _admins(known: Mapping[str, frozenset[str]]) -> str:
    return " or ".join(name for name, roles in known.items() if "admin" in roles)


def _either(roles: frozenset[str]) -> str:
    return " or ".join(_article(role) for role in sorted(roles)) if roles != _ANY else "any role"


def _article(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"


def _verb(action: str) -> str:
    words = {
        "commit": "change the model",
        "report": "add a report",
        "policy": "set the policy",
        "canary": "run a canary",
        "emergency": "break the glass",
        "review": "review an emergency",
        "kpi": "enter a KPI",
        "observe": "run the monitor",
        "rollback": "roll back",
        "grant": "grant roles",
        "withdraw": "withdraw roles",
    }
    return words.get(action, action)
