"""perdure serve, work, invite."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import note, say, say_json
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from perdure.web.server import Services
    from perdure.web.server.oidc.settings import OidcSettings
    from perdure.web.server.running import Listening

_PROVIDER = "Signing in at a provider (OpenID Connect)"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (serve, work, invite):
        app.command(rich_help_panel="Decide")(command)


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine's need TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8321,
    host_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:PORT]", help="A name under which browsers ask for it; repeat.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A TLS certificate.")] = None,
    key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Its private key.")] = None,
    behind_tls: Annotated[
        bool, typer.Option("--behind-tls", help="A proxy on this machine speaks https and passes requests on.")
    ] = False,
    workers: Annotated[bool, typer.Option("--workers/--no-workers", help="Start workers beside the server.")] = True,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Also answer applications under /v1, as OpenAI's protocol has it.")
    ] = False,
    oidc_issuer: Annotated[
        str, typer.Option(metavar="URL", rich_help_panel=_PROVIDER, help="The provider, as its tokens name it.")
    ] = "",
    oidc_client: Annotated[
        str, typer.Option(metavar="ID", rich_help_panel=_PROVIDER, help="As what this server is registered there.")
    ] = "",
    oidc_secret_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            rich_help_panel=_PROVIDER,
            help="A file with the client secret; or else it is read from PERDURE_OIDC_SECRET.",
        ),
    ] = None,
    oidc_claim: Annotated[
        str, typer.Option(rich_help_panel=_PROVIDER, help="The claim that names people; email must be verified.")
    ] = "email",
    oidc_label: Annotated[
        str, typer.Option(rich_help_panel=_PROVIDER, help="What the button calls the provider; else its host.")
    ] = "",
    workspace: Folder = Path(),
    device: Device = "cpu",
) -> None:
    """Open the workspace in a browser: requests, reports, approvals, versions, the ledger; a JSON API beside it.

    At the first start it prints a code, with which the first account is opened.

    Examples:

        perdure serve

        perdure serve --gateway

        perdure serve --host 0.0.0.0 --port 443 --certificate cert.pem --key key.pem --host-name perdure.example.com

        perdure serve --behind-tls --host-name perdure.example.com --oidc-issuer https://login.example.com \
            --oidc-client perdure --oidc-secret-file secret.txt
    """
    from perdure.web.server import Services
    from perdure.web.server.running import Listening
    from perdure.web.server.running import serve as run

    listening = Listening(host, port, tuple(host_name or ()), certificate, key, behind_tls)
    oidc = _provider(listening, oidc_issuer, oidc_client, oidc_secret_file, claim=oidc_claim, label=oidc_label)
    settings = listening.settings(oidc)
    with opened(workspace, quiet=True, device=device) as shop:
        services = Services.over(shop, settings)
        if oidc is not None:
            note(f"people may sign in at {oidc.issuer}; register {oidc.redirect} there", style="dim")
        _tell(services, f"{settings.scheme}://{host if ':' not in host else f'[{host}]'}:{port}")
        if gateway:
            _tell_of_gateway(services)
        run(services, listening, device=device, workers=workers, gateway=gateway)


def _provider(
    listening: "Listening", issuer: str, client: str, secret_file: Path | None, *, claim: str, label: str
) -> "OidcSettings | None":
    from perdure.settings import checked
    from perdure.web.server.oidc.settings import OidcSettings, read_secret

    secret = read_secret(secret_file)
    if not issuer and not client:
        if secret_file is not None:
            raise SettingError("--oidc-secret-file is for --oidc-issuer and --oidc-client; give these too")
        return None
    if not issuer or not client:
        raise SettingError("signing in at a provider needs both --oidc-issuer and --oidc-client")
    given = {"issuer": issuer, "client_id": client, "client_secret": secret, "origin": listening.origin}
    return checked(OidcSettings, {**given, "claim": claim, "label": label}, "the sign-in provider")


def _tell(services: "Services", address: str) -> None:
    note(f"{services.shop.folder.resolve().name} is at {address} (Ctrl-C ends it)", style="")
    if services.accounts.empty():
        note("Nobody has an account yet. Open the first one, an administrator's, with this code:", style="bold")
        say(services.accounts.setup_code())
        note(f"at {address}/setup; it can be used once, within {services.settings.invitation_hours:.0f} h", style="dim")


def _tell_of_gateway(services: "Services") -> None:
    from perdure.web.gateway.steering import ACTOR

    shop = services.shop
    if shop.members() and "operator" not in shop.roles(ACTOR):
        note(
            f"the gateway may not carry out canaries; an admin can let it: perdure members grant {ACTOR} operator",
            style="yellow",
        )


def work(
    lane: Annotated[str, typer.Option(help="changes (edits, tasks, measurements) or questions.")] = "changes",
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    workspace: Folder = Path(),
    device: Device = "cpu",
) -> None:
    """Carry out what people ask for in the browser; `perdure serve` starts a worker for each lane itself.

    What a crash left is taken up where it stopped.

    Example: perdure work --lane changes
    """
    from perdure.cli.start import quieten
    from perdure.web.server.jobs import LANES
    from perdure.web.server.worker import work as run

    if lane not in LANES:
        raise UnknownNameError("lane", lane, LANES)
    quieten()
    run(workspace, lane, device=device, parent=parent)


def invite(
    name: Annotated[str, typer.Argument(help="Who may sign in; the ledger will name them so.")],
    role: Annotated[
        list[str] | None, typer.Option(help="A role to grant: requester, approver, operator, auditor, admin; repeat.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="Their address at the sign-in provider, which opens the account at the first sign-in.")
    ] = "",
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Give somebody an account in the browser, or a new password: prints a code with which they choose it, once.

    Example: perdure invite mori --role admin
    """
    from perdure.web.server import Services
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        services, who = Services.over(shop), actor or current_user()
        for each in role or ():  # what is refused here leaves no account behind
            shop.grant(name, each, by=who)
        own, code = services.accounts.invite(name)
        shop.archive.record("invitation", {"account": own}, actor=who)
        if address:
            services.identities.expect(own, address)
            shop.archive.record("address set", {"account": own}, actor=who)
    if json:
        say_json({"name": own, "code": code})
        return
    say(code)
    note(
        f"{own} sets a password with this code at /join, within {services.settings.invitation_hours:.0f} h", style="dim"
    )
