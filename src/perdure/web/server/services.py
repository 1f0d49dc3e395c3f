"""Everything that answering a request needs, made once when the server starts."""

from dataclasses import dataclass

import httpx
from argon2 import PasswordHasher

from perdure.web.server.accounts import Accounts
from perdure.web.server.confirmations import Confirmations
from perdure.web.server.jobs import Jobs
from perdure.web.server.logins import Logins
from perdure.web.server.oidc.flows import Flows
from perdure.web.server.oidc.identities import Identities
from perdure.web.server.oidc.provider import Provider
from perdure.web.server.settings import ServerSettings
from perdure.web.server.store import Store
from perdure.web.server.throttle import Pace, WrongPasswords
from perdure.web.server.tokens import Tokens
from perdure.web.server.watching import Watch
from perdure.workspace import Workspace
from perdure.workspace.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """The workspace, and what the server keeps beside it."""

    shop: Workspace
    settings: ServerSettings
    store: Store
    accounts: Accounts
    logins: Logins
    tokens: Tokens
    jobs: Jobs
    wrong: WrongPasswords
    pace: Pace
    watch: Watch
    metrics: Metrics
    identities: Identities
    flows: Flows
    confirmations: Confirmations
    provider: Provider | None = None

    @classmethod
    def over(
        cls,
        shop: Workspace,
        settings: ServerSettings | None = None,
        *,
        store: Store | None = None,
        hasher: PasswordHasher | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> "Services":
        """The services of a workspace.

        Args:
            shop: The workspace.
            settings: Of the server; the defaults when not given.
            store: Its database; `server.sqlite` beside the workspace's when not given.
            hasher: How passwords are hashed; argon2's recommended costs when not given.
            transport: How the provider is reached; over the network when not given.
        """
        chosen = settings or ServerSettings()
        kept = store or Store(shop.folder)
        return cls(
            shop,
            chosen,
            kept,
            Accounts(kept, chosen, hasher),
            Logins(kept, chosen),
            Tokens(kept, chosen),
            Jobs(kept),
            WrongPasswords(kept, chosen),
            Pace(chosen),
            Watch(shop),
            Metrics(shop),
            Identities(kept),
            Flows(kept, chosen),
            Confirmations(kept, chosen),
            Provider(chosen.oidc, kept.clock, transport) if chosen.oidc else None,
        )
