"""How somebody can show once more that it is them, for the forms that ask for it."""

from dataclasses import dataclass

from fastapi import Request

from perdure.web.server.confirmations import Act
from perdure.web.server.routing import identity_of, services_of
from perdure.web.server.secrets import digest_secret


@dataclass(frozen=True)
class Proof:
    """The ways that are open to somebody for one act.

    Attributes:
        kind: What is confirmed.
        password: Whether they have a password to give.
        provider: At which provider they can confirm; empty where they have no identity at one.
        until: Until when what they confirmed there counts; None where they did not.
    """

    kind: str
    password: bool
    provider: str
    until: float | None

    @property
    def ready(self) -> bool:
        """Whether the form can be sent now."""
        return self.password or self.until is not None


def proof(request: Request, act: Act) -> Proof:
    """The ways that are open to who makes a request."""
    services, me = services_of(request), identity_of(request)
    account, provider = services.accounts.get(me.name), services.provider
    linked = provider is not None and me.name in services.identities.linked(provider.settings.issuer)
    until = services.confirmations.until(digest_secret(me.session), act)
    label = provider.settings.name if provider and linked else ""
    return Proof(act.kind, account is not None and account.ready, label, until)
