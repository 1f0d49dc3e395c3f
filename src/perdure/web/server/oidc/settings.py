"""Where people sign in, and as what this server is known there."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from perdure.errors import SettingError

SECRET = "PERDURE_OIDC_SECRET"  # noqa: S105 - the name of the variable, not a secret
CALLBACK = "/oidc/callback"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ADDRESS = re.compile(
    r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~!$&()*+,;=:@%/-]*)?(\?[A-Za-z0-9._~!$&()*+,;=:@%/?-]*)?"
)
_MOST = 4096


class OidcSettings(BaseModel):
    """Settings of signing in at an identity provider."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: str = Field(description="The provider, exactly as its tokens name it; https, http on this machine alone")
    client_id: str = Field(min_length=1, max_length=512, description="As what this server is registered there")
    client_secret: SecretStr | None = Field(None, description="Its secret; none for a client that is public")
    origin: str = Field(description="Where browsers reach this server; the provider sends them back there alone")
    claim: str = Field(
        "email",
        pattern="^[A-Za-z][A-Za-z0-9_.:/-]{0,99}$",
        description="The claim that names the person; email counts when the provider verified it",
    )
    label: str = Field("", max_length=60, description="What the button calls the provider; its host when empty")
    flow_seconds: float = Field(600.0, gt=0, description="How long signing in at the provider may take")
    confirm_seconds: float = Field(300.0, gt=0, description="How long a confirmation may be used, once")
    leeway_seconds: float = Field(30.0, ge=0, le=120, description="How far the provider's clock may be off")
    patience_seconds: float = Field(5.0, gt=0, description="How long an answer of the provider may take")

    @field_validator("issuer")
    @classmethod
    def _reachable(cls, given: str) -> str:
        if "?" in given or not trusted_address(given, loopback=True):
            raise ValueError("an https address without a query is allowed, and http on this machine alone")
        return given

    @field_validator("origin")
    @classmethod
    def _bare(cls, given: str) -> str:
        # Whether it may be plain http is decided where the server listens.
        if not _ADDRESS.fullmatch(given) or urlsplit(given).path or "?" in given:
            raise ValueError("an origin is allowed: a scheme, a host and a port, nothing after them")
        return given

    @property
    def name(self) -> str:
        """What people read: the label, or the provider's host."""
        return self.label or urlsplit(self.issuer).netloc

    @property
    def redirect(self) -> str:
        """Where the provider sends browsers back: fixed here, whatever host a request names."""
        return self.origin + CALLBACK

    @property
    def loopback(self) -> bool:
        """Whether the provider is on this machine and may speak plain http."""
        return urlsplit(self.issuer).hostname in _LOOPBACK


def trusted_address(given: str, *, loopback: bool) -> bool:
    """Whether an address may be asked: https; plain http only on this machine, and only where that is allowed."""
    if len(given) > _MOST or not _ADDRESS.fullmatch(given):
        return False
    parts = urlsplit(given)
    return bool(parts.hostname) and (parts.scheme == "https" or (loopback and parts.hostname in _LOOPBACK))


def read_secret(file: Path | None) -> SecretStr | None:
    """The client secret, of a file or of the environment; it is taken out of the environment, which workers inherit.

    Raises:
        SettingError: Both were given, or the file holds none.
    """
    found = os.environ.pop(SECRET, "")
    if file is None:
        return SecretStr(found) if found else None
    if found:
        raise SettingError(f"the client secret was given twice, in {file} and in {SECRET}; give one")
    text = file.read_text(encoding="utf-8").strip()
    if not 1 <= len(text) <= _MOST or len(text.split()) != 1:
        raise SettingError(f"{file} must hold the client secret alone: one word of up to {_MOST} characters")
    return SecretStr(text)
