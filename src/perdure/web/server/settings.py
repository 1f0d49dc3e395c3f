"""What whoever starts the server decides: names it answers to, limits, how long a login lasts."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perdure.web.server.oidc.settings import OidcSettings

KIB, MIB = 1 << 10, 1 << 20


class ServerSettings(BaseModel):
    """Settings of the server; the defaults suit one machine and its own browser."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: frozenset[str] = Field(
        frozenset({"localhost:8321", "127.0.0.1:8321", "[::1]:8321"}),
        description="Values of the Host header that are answered, with the port where it is not the scheme's own",
    )
    scheme: Literal["http", "https"] = Field("http", description="How browsers reach it; http only on this machine")
    body_bytes: int = Field(64 * KIB, gt=0, description="The largest body of an ordinary request")
    upload_bytes: int = Field(16 * MIB, gt=0, description="The largest body of a request that carries a file")
    body_seconds: float = Field(30.0, gt=0, description="How long a body may take to arrive")
    requests_per_minute: int = Field(1200, gt=0, description="Requests that one address may make")
    writes_per_minute: int = Field(240, gt=0, description="Requests other than GET that one address may make")
    login_hours: float = Field(12.0, gt=0, description="A login ends after this, whatever happens")
    idle_minutes: float = Field(60.0, gt=0, description="A login ends after this without a request")
    invitation_hours: float = Field(72.0, gt=0, description="How long a code for a first password can be used")
    password_length: int = Field(12, ge=8, description="The fewest characters of a password")
    tries: int = Field(8, gt=0, description="Wrong passwords for one account before it must wait")
    tries_per_address: int = Field(40, gt=0, description="Wrong passwords from one address before it must wait")
    wait_minutes: float = Field(15.0, gt=0, description="How far back wrong passwords count")
    token_days: int = Field(90, gt=0, description="The longest life of an API token")
    oidc: OidcSettings | None = Field(None, description="Signing in at an identity provider; passwords alone without")

    @model_validator(mode="after")
    def _answers_the_provider(self) -> "ServerSettings":
        if self.oidc and self.oidc.origin not in {self.origin(host) for host in self.hosts}:
            raise ValueError(f"the provider would send browsers to {self.oidc.origin}, which is not answered")
        return self

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS."""
        return self.scheme == "https"

    def origin(self, host: str) -> str:
        """The origin of pages that were asked for under this host."""
        return f"{self.scheme}://{host}"
