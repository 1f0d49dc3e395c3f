"""Aliases: names such as "production" that move between versions, with every move kept."""

import re
import sqlite3

from perdure.errors import SettingError, WorkspaceError
from perdure.workspace.decisions import last_decision
from perdure.workspace.ledger import append_row
from perdure.workspace.releases import AliasMove
from perdure.workspace.rows import governed_rows, rows_about

PRODUCTION = "production"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_RESERVED = re.compile(r"latest|v[0-9]+")


def checked_alias(alias: str) -> str:
    """The name, if an alias may have it.

    Raises:
        SettingError: It is reserved or badly formed.
    """
    if not _NAME.fullmatch(alias):
        raise SettingError(f"an alias is a small letter and up to 31 small letters, digits or hyphens; given {alias!r}")
    if _RESERVED.fullmatch(alias):
        raise SettingError(f"{alias!r} is reserved: 'latest' and 'v' with a number name versions themselves")
    return alias


def moves(connection: sqlite3.Connection, alias: str | None = None) -> list[AliasMove]:
    """Every move of one alias or of all, oldest first."""
    if alias is None:
        rows = governed_rows(connection, "alias_moves")
    else:
        rows = rows_about(connection, "alias_moves", "alias", alias)
    return [AliasMove(**{name: row[name] for name in AliasMove.__dataclass_fields__}) for row in rows]


def heads(connection: sqlite3.Connection) -> dict[str, str]:
    """What each alias holds now: alias to version id."""
    return {move.alias: move.version for move in moves(connection)}


def held_before(history: list[AliasMove]) -> list[str]:
    """The versions to which an alias can go back, nearest last.

    A promotion adds what was held; a rollback takes away all from its target on. So repeated rollbacks
    walk back through the history and never swing between two versions.
    """
    stack: list[str] = []
    for move in history:
        if move.kind != "rollback":
            stack += [move.version] if stack[-1:] != [move.version] else []  # twice: a broken glass was confirmed
            continue
        while stack and stack[-1] != move.version:
            stack.pop()
    return stack[:-1]


def rollback_target(connection: sqlite3.Connection, alias: str) -> str:
    """The version that a rollback of the alias would give: the nearest earlier one not rejected since.

    Raises:
        WorkspaceError: The alias is unknown or held nothing before.
    """
    history = moves(connection, alias)
    if not history:
        raise WorkspaceError(f"no version was ever promoted to {alias!r}, so there is nothing to go back to")
    # What broke the glass is gone back to only if it was promoted in the ordinary way as well.
    promoted = {move.version for move in history if move.kind == "promote"}
    for version in reversed([held for held in held_before(history) if held in promoted]):
        decision = last_decision(connection, version)
        if decision is None or decision["decision"] != "rejected":
            return version
    raise WorkspaceError(f"{alias!r} held no other version before that is still acceptable; promote one instead")


def move(
    connection: sqlite3.Connection, alias: str, version: str, *, kind: str, actor: str, policy: str | None
) -> None:
    """Move an alias, within the caller's transaction."""
    values = {
        "alias": alias,
        "version": version,
        "previous": heads(connection).get(alias),
        "kind": kind,
        "policy": policy,
    }
    append_row(connection, "alias_moves", values, action=kind, actor=actor)
