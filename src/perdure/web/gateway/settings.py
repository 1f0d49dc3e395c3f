"""What whoever runs the gateway decides: `gateway.toml` in the workspace, read when the gateway starts."""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from perdure.errors import SettingError
from perdure.settings import checked

FILE_NAME = "gateway.toml"
_FILE_BYTES = 1 << 20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _backend_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://HOST or https://HOST, with a port and a path if need be")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not carry a name, a password, a query or a fragment; a key goes into key_variable")
    return url.rstrip("/")


def _version_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("backends are listed by the whole id of a version: 64 hexadecimal digits")
    return text


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Section):
    """What one request, and all together, may take."""

    body_bytes: int = Field(1 << 20, gt=0, description="The largest body of a request")
    messages: int = Field(256, gt=0, description="Messages of a conversation")
    tokens: int = Field(1024, gt=0, description="New tokens that a request may ask for")
    usual_tokens: int = Field(256, gt=0, description="New tokens of a request that does not say")
    waiting: int = Field(16, ge=0, description="Requests that may wait while one is answered in process")
    elsewhere: int = Field(64, gt=0, description="Requests under way at backends")
    seconds: float = Field(300.0, gt=0, description="How long an answer may take, waiting and loading included")


class Models(_Section):
    """Versions held in memory."""

    loaded: int = Field(2, gt=0, description="Models in memory at once; versions with one and the same weights share")
    memory_gib: float | None = Field(None, gt=0, description="The weights of all of them together, in GiB")


class Serving(_Section):
    """Which versions are answered for by name, besides those that an alias holds."""

    unapproved: bool = Field(False, description="Also candidates that nobody approved; rejected ones never")


class Recording(_Section):
    """What is kept of the traffic beside counts and times."""

    texts: bool = Field(False, description="Requests and answers, word for word")


class Judging(_Section):
    """What counts as a failed request when a canary is judged; errors of the version always do."""

    refusals: bool = Field(True, description="Answers that are empty or begin with one of the phrases")
    phrases: tuple[str, ...] = Field(
        (
            "I'm sorry, but I can",
            "I cannot help with",
            "I can't help with",
            "申し訳ありませんが",
            "申し訳ございませんが",
        ),
        description="How a refusal to answer begins",
    )
    bad_score: float = Field(0.5, ge=0, le=1, description="Scores of clients below this are failures")
    look_seconds: float = Field(5.0, gt=0, description="How often the plans of canaries are looked at without traffic")


class Backend(_Section):
    """A server that answers for one version over HTTP, such as vLLM."""

    url: Annotated[str, AfterValidator(_backend_url)] = Field(
        description="Its base URL, such as http://10.0.0.5:8000/v1"
    )
    model: str | None = Field(
        None, min_length=1, max_length=200, description="What it calls the version; its id if not given"
    )
    key_variable: str | None = Field(
        None, pattern=_VARIABLE.pattern, description="The environment variable that holds its key"
    )
    connect_seconds: float = Field(5.0, gt=0, description="How long connecting may take")
    silent_seconds: float = Field(120.0, gt=0, description="How long it may say nothing")

    def key(self) -> str | None:
        """Its key, from the environment.

        Raises:
            SettingError: The variable is not set.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable)
        if not key:
            raise SettingError(f"the backend {self.url} needs the environment variable {self.key_variable}; set it")
        return key


class GatewaySettings(_Section):
    """Settings of the gateway; the defaults answer in process and keep no text."""

    limits: Limits = Limits()
    models: Models = Models()
    serving: Serving = Serving()
    record: Recording = Recording()
    canary: Judging = Judging()
    backends: dict[Annotated[str, AfterValidator(_version_id)], Backend] = Field(
        default_factory=dict, description="From the id of a version to the server that answers for it"
    )


def read_settings(folder: Path) -> GatewaySettings:
    """The settings in a workspace's `gateway.toml`; the defaults where there is no such file.

    Raises:
        SettingError: The file is no TOML, or a setting is unknown or out of range.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return GatewaySettings()
    try:
        with path.open("rb") as stream:
            given = tomllib.loads(stream.read(_FILE_BYTES).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{FILE_NAME} cannot be read: {error}") from error
    return checked(GatewaySettings, given, FILE_NAME)
