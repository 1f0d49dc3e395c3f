"""Who signs for a workspace, and whose signatures it believes: its own key, and what its ledger says of others."""

from typing import TYPE_CHECKING

from perdure.errors import IntegrityError, UnknownNameError, WorkspaceError
from perdure.signing import checked_fingerprint, fingerprint, new_key, public_part, read_key
from perdure.workspace.ledger import checked_actor

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from perdure.workspace.workspace import Workspace

_TRUST, _DISTRUST = "trust signer", "distrust signer"


def trust(shop: "Workspace", given: str, *, actor: str, withdraw: bool = False) -> str:
    """Trust a signer by the fingerprint of the key, or no longer; the fingerprint.

    What was imported before stays.

    Args:
        shop: The workspace.
        given: The whole fingerprint, 64 hexadecimal digits.
        actor: Who decides.
        withdraw: Trust the signer no longer.

    Raises:
        SettingError: It is no whole fingerprint.
        UnknownNameError: It is to be withdrawn and was never trusted.
        RefusedError: There are members, and the actor is no admin.
    """
    shop.archive.check_permitted("trust a signer", actor)
    found, known = checked_fingerprint(given), _trusted(shop)
    if withdraw and found not in known:
        raise UnknownNameError("trusted signer", found, known)
    if withdraw or found not in known:
        shop.archive.record(_DISTRUST if withdraw else _TRUST, {"fingerprint": found}, actor=checked_actor(actor))
    return found


def trusted_signers(shop: "Workspace") -> frozenset[str]:
    """Fingerprints of the signers whose vectors and evidence are believed; the workspace's own key is one."""
    own = {own_fingerprint(shop)} if _key_path(shop).exists() else set()
    return frozenset(_trusted(shop) | own)


def own_fingerprint(shop: "Workspace") -> str:
    """The fingerprint of the key that signs what this workspace exports.

    Raises:
        WorkspaceError: There is none yet.
    """
    path = _key_path(shop)
    if not path.exists():
        raise WorkspaceError(
            f"{shop.folder} has no signing key yet; the first perdure vectors export or perdure export --evidence "
            "makes it"
        )
    return fingerprint(public_part(read_key(path)))


def _trusted(shop: "Workspace") -> set[str]:
    """What the ledger says about trust: the latest word on each fingerprint."""
    found = set[str]()
    for entry in shop.archive.log():
        if entry.action not in (_TRUST, _DISTRUST):
            continue
        if not entry.is_whole():
            raise IntegrityError(
                f"ledger: row {entry.sequence} was changed, so who is trusted is not known; run verify"
            )
        (found.add if entry.action == _TRUST else found.discard)(str(entry.details.get("fingerprint")))
    return found


def own_key(shop: "Workspace", actor: str) -> "Ed25519PrivateKey":
    """The workspace's key, made if there is none; two first exports make one."""
    path = _key_path(shop)
    with shop.archive.lock.held("make a signing key", actor):
        if path.exists():
            return read_key(path)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return new_key(path)


def _key_path(shop: "Workspace") -> "Path":
    return shop.folder / "keys" / "signing.pem"
