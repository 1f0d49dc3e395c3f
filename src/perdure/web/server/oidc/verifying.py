"""An ID token, believed only after everything that OpenID Connect Core 1.0 (3.1.3.7) has a client check."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.web.server.access import DeniedError
from perdure.web.server.oidc.settings import OidcSettings
from perdure.web.server.secrets import digest_secret, same
from perdure.web.server.words import _

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

# With a public key alone nobody can sign under these; "none" and HS256, whose key would be public, are not among them.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_KINDS = frozenset({"RSA", "EC", "OKP"})
_RSA_BITS = 2048
_SUBJECT = 255  # OpenID Connect Core, section 2


@dataclass(frozen=True)
class Evidence:
    """Who signed in, as the provider vouches.

    Attributes:
        issuer: The provider.
        subject: Who, for good; never given to somebody else there.
        person: What the claim that names people says, in small letters; empty where it does not count.
    """

    issuer: str
    subject: str
    person: str


@dataclass(frozen=True)
class Expected:
    """What a token must answer to.

    Attributes:
        nonce: The hash of the number that was sent along.
        now: The time, in seconds since 1970.
        since: When they must have signed in at the earliest; None where an open session there will do.
    """

    nonce: str
    now: float
    since: float | None = None


class UnknownKeyError(Exception):
    """The token names a key that is not in the set; the provider may have changed its keys."""


def public_keys(given: Mapping[str, Any]) -> "KeySet":
    """The keys of a set (RFC 7517) that can check a signature; others are left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, KeySet, RSAKey

    found = []
    for one in given.get("keys", ()) if isinstance(given.get("keys"), list) else ():
        if not isinstance(one, dict) or one.get("kty") not in _KINDS or one.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key({name: value for name, value in one.items() if name != "d"})
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if not isinstance(key, RSAKey) or key.raw_value.key_size >= _RSA_BITS:
            found.append(key)
    return KeySet(found)


def verify(token: str, keys: "KeySet", settings: OidcSettings, expected: Expected) -> Evidence:
    """Whom a token is about.

    Args:
        token: The ID token.
        keys: The provider's public keys.
        settings: For whom it must be, and from whom.
        expected: What it must answer to.

    Raises:
        UnknownKeyError: It is signed with a key that is not there.
        DeniedError: It is not believed.
    """
    claims = _signed(token, keys, settings, expected.now)
    if not same(digest_secret(str(claims.get("nonce", ""))), expected.nonce):
        raise _untrusted()
    if not 1 <= len(claims["sub"]) <= _SUBJECT:
        raise _untrusted()
    if expected.since is not None:
        _check_fresh(claims.get("auth_time"), expected, settings.leeway_seconds)
    return Evidence(claims["iss"], claims["sub"], person_of(claims, settings.claim))


def person_of(claims: Mapping[str, Any], claim: str) -> str:
    """What names the person; an e-mail address only if the provider says that it verified it."""
    found = claims.get(claim)
    if not isinstance(found, str) or (claim == "email" and claims.get("email_verified") is not True):
        return ""
    return folded(found)


def folded(person: str) -> str:
    """The one spelling of an address: in small letters where that makes no letters equal that look alike."""
    plain = person.strip()
    return plain.lower() if plain.isascii() else plain


def _signed(token: str, keys: "KeySet", settings: OidcSettings, now: float) -> Mapping[str, Any]:
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import InvalidKeyIdError, JoseError

    options = {"iss": {"value": settings.issuer}, "aud": {"value": settings.client_id}, "sub": {"essential": True}}
    try:
        read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        claims = CodeIDToken(read.claims, read.header, options, {"client_id": settings.client_id})
        claims.validate(now=int(now), leeway=int(settings.leeway_seconds))
    except InvalidKeyIdError as error:
        raise UnknownKeyError from error
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _untrusted() from error
    return claims  # type: ignore[no-any-return]


def _check_fresh(given: Any, expected: Expected, leeway: float) -> None:
    """An open session at the provider proves nothing about who sits there now."""
    known = isinstance(given, int | float) and not isinstance(given, bool)
    if not known or not (expected.since or 0.0) - leeway <= given <= expected.now + leeway:
        words = _("The provider did not have you sign in anew, so it is not confirmed that it is you. Try again.")
        raise DeniedError(403, words)


def _untrusted() -> DeniedError:
    return DeniedError(
        403, _("What the sign-in provider sent cannot be trusted, so nobody was signed in. Start again.")
    )
