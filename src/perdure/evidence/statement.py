"""What a pack says of itself: an in-toto statement whose subjects are its files, in a signed DSSE envelope.

in-toto Attestation Framework, Statement v1; Dead Simple Signing Envelope v1.0.2 (both of the in-toto project). Tools of
others read and verify them; the signature is Ed25519, RFC 8032.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import canonical_json, digest_bytes
from perdure.errors import IntegrityError
from perdure.signing import fingerprint, is_signed, public_part, sign

PAYLOAD_TYPE = "application/vnd.in-toto+json"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Digest(_Part):
    """The hash of a file."""

    sha256: Hash


class Subject(_Part):
    """One file of the pack."""

    name: str
    digest: Digest


class About(_Part):
    """What the pack is about.

    Attributes:
        name: What people call the version, such as v3.
        version: Its id, the sha256 of its manifest.
        lineage: The ids from the base to the version.
        report: The sha256 of its latest report.
        policy: The digest of the policy by which the pack judges it.
        policy_in_force: That of the policy in force at the export; another one where it changed since the approval.
        approved_by: Whose consent to this version, report and policy counted at the export.
        ledger_rows: How many rows the extract has.
        head: The hash of its last row, which was the ledger's last at the export.
        signer: The fingerprint of the key that signs.
        exported: When, UTC, ISO 8601.
        perdure: The version of the program.
    """

    name: str
    version: Hash
    lineage: tuple[Hash, ...] = Field(min_length=1)
    report: Hash
    policy: Hash
    policy_in_force: Hash
    approved_by: tuple[str, ...]
    ledger_rows: int = Field(ge=1)
    head: Hash
    signer: Hash
    exported: str
    perdure: str


class Statement(_Part):
    """The manifest of a pack: its files by hash, and what it is about."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field("https://in-toto.io/Statement/v1", alias="_type")
    subject: tuple[Subject, ...]
    predicate_type: Literal["urn:perdure:evidence:1"] = Field("urn:perdure:evidence:1", alias="predicateType")
    predicate: About

    def to_bytes(self) -> bytes:
        """The canonical JSON: what is signed."""
        return canonical_json(self.model_dump(mode="json", by_alias=True)).encode()

    @property
    def hashes(self) -> dict[str, str]:
        """From the name of each file to its sha256."""
        return {subject.name: subject.digest.sha256 for subject in self.subject}


class _Signature(_Part):
    keyid: Hash
    sig: str


class _Envelope(_Part):
    payload_type: Literal["application/vnd.in-toto+json"] = Field("application/vnd.in-toto+json", alias="payloadType")
    payload: str
    signatures: tuple[_Signature]


def state(files: Mapping[str, bytes], about: About) -> Statement:
    """The statement over files."""
    subjects = [Subject(name=name, digest=Digest(sha256=digest_bytes(files[name]))) for name in sorted(files)]
    return Statement(subject=tuple(subjects), predicate=about)


def read_statement(data: bytes) -> Statement:
    """The statement that the bytes say.

    Raises:
        IntegrityError: They are none, or name a file twice.
    """
    try:
        found = Statement.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the start"
        raise IntegrityError(f"it is no statement of an evidence pack; at {where}: {first['msg']}") from error
    if len(found.hashes) != len(found.subject):
        raise IntegrityError("it names a file twice")
    return found


def pre_authentication(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature covers: PAE(type, body) = "DSSEv1" SP len(type) SP type SP len(body) SP body."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def seal(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope with a payload and its signature; the same key and payload give the same bytes."""
    signature = bytes.fromhex(sign(key, pre_authentication(PAYLOAD_TYPE, payload)))
    signed = _Signature(keyid=fingerprint(public_part(key)), sig=base64.b64encode(signature).decode())
    made = _Envelope(payload=base64.b64encode(payload).decode(), signatures=(signed,))
    return canonical_json(made.model_dump(mode="json", by_alias=True)).encode()


def seal_problem(envelope: bytes, payload: bytes, public: str) -> str:
    """Why an envelope is not the signature of a payload by a public key (hex); empty when it is."""
    try:
        found = _Envelope.model_validate_json(envelope)
        carried = base64.b64decode(found.payload, validate=True)
        signature = base64.b64decode(found.signatures[0].sig, validate=True)
    except (ValidationError, binascii.Error, ValueError) as error:
        return f"it is no DSSE envelope with one signature ({_first_line(error)})"
    if carried != payload:
        return "it signs another manifest than the one in the pack"
    if found.signatures[0].keyid != fingerprint(public):
        return "it names another key than the one in the pack"
    if not is_signed(public, signature.hex(), pre_authentication(PAYLOAD_TYPE, payload)):
        return "the signature does not hold: the manifest was changed after it was signed, or the key is another"
    return ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
