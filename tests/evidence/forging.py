"""Packs changed by somebody who knows how they are made."""

import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from perdure.content import digest_bytes
from perdure.evidence.statement import read_statement, seal, state
from perdure.signing import fingerprint, public_part, public_pem

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def rewrite(pack, name, change):
    """Change a file of a pack through its JSON."""
    path = pack / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def reseal(pack, key=STRANGER, **about):
    """Make a changed pack hang together again, as somebody would who has a key, though not the workspace's."""
    (pack / "signer.pem").write_bytes(public_pem(key))
    names = [path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file()]
    files = {name: (pack / name).read_bytes() for name in names if not name.startswith("manifest.")}
    before = read_statement((pack / "manifest.json").read_bytes()).predicate
    told = {"report": digest_bytes(files["report.json"]), "signer": fingerprint(public_part(key)), **about}
    manifest = state(files, before.model_copy(update=told)).to_bytes()
    (pack / "manifest.json").write_bytes(manifest)
    (pack / "manifest.dsse.json").write_bytes(seal(manifest, key))
    return pack
