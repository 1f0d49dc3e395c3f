"""`notify.toml`: who hears of what. Addresses stand there and nowhere else; secrets stand in the environment."""

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from perdure.errors import SettingError
from perdure.integrations.notices import Event

FILE = "notify.toml"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
_SHORTEST_SECRET = 16


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Target(_Section):
    name: Name = Field(description="by which messages and the state file name it")
    events: tuple[Event, ...] = Field((), description="which events; all when empty")

    def wants(self, event: str) -> bool:
        """Whether it hears of an event."""
        return not self.events or event in (*self.events, "test")


class Webhook(_Target):
    """A receiver over HTTP, told in JSON signed with HMAC-SHA256."""

    url: str
    secret_env: str = Field(min_length=1, description="the environment variable with the signing secret")

    @field_validator("url")
    @classmethod
    def _safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with https://")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("must begin with https://; http is for this machine alone")
        if parts.username or parts.password:
            raise ValueError("must hold no password")
        return url

    @property
    def secret(self) -> bytes:
        """The signing secret.

        Raises:
            SettingError: The variable is not set, or too short.
        """
        value = _secret(self.name, self.secret_env).encode()
        if len(value) < _SHORTEST_SECRET:
            raise SettingError(f"notify.toml, {self.name}: ${self.secret_env} needs {_SHORTEST_SECRET} or more bytes")
        return value


class Mail(_Target):
    """Receivers by e-mail."""

    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password_env: str = Field("", description="the environment variable with the password")
    sender: str = Field(pattern=r"^[^@\s\r\n]+@[^@\s\r\n]+$")
    recipients: tuple[Annotated[str, Field(pattern=r"^[^@\s\r\n]+@[^@\s\r\n]+$")], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _safe(self) -> "Mail":
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError("security is starttls or tls; none is for this machine alone")
        if self.username and not self.password_env:
            raise ValueError("a username needs password_env")
        return self

    @property
    def password(self) -> str:
        """The password.

        Raises:
            SettingError: The variable is not set.
        """
        return _secret(self.name, self.password_env)


class Delivery(_Section):
    """How hard a delivery is tried."""

    timeout_s: float = Field(10.0, gt=0, le=120)
    attempts: int = Field(4, ge=1, le=10)
    backoff_s: float = Field(1.0, ge=0, le=60, description="before the second try; doubled before each further one")


class NotifySettings(_Section):
    """All of `notify.toml`."""

    webhook: tuple[Webhook, ...] = ()
    mail: tuple[Mail, ...] = ()
    delivery: Delivery = Delivery()

    @model_validator(mode="after")
    def _named_once(self) -> "NotifySettings":
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError("every webhook and mail needs a name of its own")
        return self

    @property
    def targets(self) -> tuple[Webhook | Mail, ...]:
        """Everybody who hears of something."""
        return (*self.webhook, *self.mail)


def read_settings(folder: Path) -> NotifySettings | None:
    """The settings in a workspace's folder; None where nobody is to hear of anything.

    Raises:
        SettingError: The file is no TOML, or something in it is unknown, missing or unsafe.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{FILE} cannot be read: {error}") from error
    try:
        return NotifySettings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{FILE} is no TOML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors(include_input=False)]
        raise SettingError(f"{FILE} is not valid: {'; '.join(wrong)}") from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret(name: str, variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise SettingError(f"notify.toml, {name}: the environment variable {variable} is not set")
    return value
