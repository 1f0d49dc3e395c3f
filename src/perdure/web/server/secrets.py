"""Secrets that the server hands out once and keeps only as hashes."""

import hashlib
import secrets

_BYTES = 32


def new_secret(prefix: str = "") -> str:
    """A text of 256 random bits, after a prefix that says what it opens."""
    return prefix + secrets.token_urlsafe(_BYTES)


def digest_secret(secret: str) -> str:
    """What is stored of it: the sha256 (hex). With 256 random bits nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def form_token(session: str) -> str:
    """The token that a form must carry, derived from the cookie that no other site can read."""
    return hashlib.sha256(b"perdure form\0" + session.encode("utf-8", "surrogatepass")).hexdigest()


def same(first: str, second: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return secrets.compare_digest(first.encode("utf-8", "surrogatepass"), second.encode("utf-8", "surrogatepass"))
