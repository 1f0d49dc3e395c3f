"""The server as processes: one that answers, and beside it a worker for each lane, started again when it dies."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import SettingError
from perdure.web.server.app import shielded
from perdure.web.server.jobs import LANES
from perdure.web.server.oidc.settings import OidcSettings
from perdure.web.server.services import Services
from perdure.web.server.settings import ServerSettings
from perdure.web.server.shield import App
from perdure.web.server.telling import telling

_log = logging.getLogger("perdure.server")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LOOK_S, _GRACE_S = 1.0, 30.0, 0.5, 10.0


@dataclass(frozen=True)
class Listening:
    """Where the server listens.

    Attributes:
        host: An address of this machine.
        port: A port.
        names: Names under which browsers ask for it, beside those of this machine.
        certificate: A TLS certificate; with `key` the server speaks https itself.
        key: Its private key.
        behind_tls: Something in front of it, on this machine, speaks https and passes on.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    names: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_tls: bool = False

    @property
    def tls(self) -> bool:
        """Whether browsers reach it over https."""
        return self.behind_tls or self.certificate is not None

    @property
    def origin(self) -> str:
        """Where browsers reach it: under the first name that it was given, else at its address on this machine."""
        name = (self.names or ("127.0.0.1",))[0].lower()
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        plain = ":" in name.removeprefix("[::1]") or self.port == usual or (self.behind_tls and bool(self.names))
        return f"{scheme}://{name}" if plain else f"{scheme}://{name}:{self.port}"

    def settings(self, oidc: OidcSettings | None = None) -> ServerSettings:
        """The server's settings for this.

        Args:
            oidc: Signing in at an identity provider; passwords alone when not given.

        Raises:
            SettingError: Passwords would cross a network in the clear.
        """
        if not self.tls and self.host not in _LOOPBACK:
            raise SettingError(
                f"{self.host} can be reached from elsewhere, and without TLS passwords would cross the network in the "
                "clear. Give --certificate and --key, put a proxy in front with --behind-tls, or listen on 127.0.0.1"
            )
        if (self.certificate is None) != (self.key is None):
            raise SettingError("TLS needs both --certificate and --key")
        return ServerSettings(hosts=frozenset(self._hosts()), scheme="https" if self.tls else "http", oidc=oidc)

    def _hosts(self) -> Iterator[str]:
        """Values of the Host header: with the port where it is not the scheme's own."""
        usual = 443 if self.tls else 80
        for name in (*self.names, "localhost", "127.0.0.1", "[::1]", self.host):
            known = name.lower()
            # A name given with its port is taken as it is; a proxy in front listens on a port of its own.
            if ":" in known.removeprefix("[::1]"):
                yield known
                continue
            yield known if self.port == usual else f"{known}:{self.port}"
            if self.behind_tls and name in self.names:
                yield known


def serve(
    services: Services, listening: Listening, *, device: str = "cpu", workers: bool = True, gateway: bool = False
) -> None:
    """Answer until the process is told to end, with workers beside it, and the gateway if asked."""
    import uvicorn

    config = uvicorn.Config(
        with_gateway(services, device) if gateway else shielded(services),
        host=listening.host,
        port=listening.port,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        proxy_headers=listening.behind_tls,
        forwarded_allow_ips="127.0.0.1",
        server_header=False,
        limit_concurrency=200,
        timeout_keep_alive=5,
        ws="none",
        log_level="warning",
        access_log=False,
    )
    beside_it = working(services.shop.folder, device=device) if workers else nullcontext()
    with telling(services.shop), beside_it:
        uvicorn.Server(config).run()


def with_gateway(services: Services, device: str) -> App:
    """The pages, with the gateway beside them under /v1."""
    from perdure.web.gateway import Gateway, beside, create_gateway_app

    gateway = Gateway(services.shop.folder, device=device)
    return beside(shielded(services), create_gateway_app(gateway, services.tokens, hosts=services.settings.hosts))


@contextmanager
def working(folder: Path, *, device: str = "cpu") -> Iterator[None]:
    """A worker for each lane while open; one that dies is started again, after a pause that grows."""
    over = threading.Event()
    keepers = [threading.Thread(target=_keep, args=(folder, lane, device, over), daemon=True) for lane in LANES]
    for keeper in keepers:
        keeper.start()
    try:
        yield
    finally:
        over.set()
        for keeper in keepers:
            keeper.join(_GRACE_S)


def _keep(folder: Path, lane: str, device: str, over: threading.Event) -> None:
    wait = _FIRST_WAIT_S
    while not over.is_set():
        started = time.monotonic()
        worker = subprocess.Popen(command(folder, lane, device), stdin=subprocess.DEVNULL)
        while worker.poll() is None and not over.wait(_LOOK_S):
            pass
        if worker.poll() is None:
            _end(worker)
            return
        wait = _FIRST_WAIT_S if time.monotonic() - started > _LONGEST_WAIT_S else min(2 * wait, _LONGEST_WAIT_S)
        _log.warning("the worker of %s ended with %s; it is started again in %.0f s", lane, worker.returncode, wait)
        over.wait(wait)


def command(folder: Path, lane: str, device: str) -> list[str]:
    """How a worker beside the server is started."""
    own = ["work", "--workspace", str(folder), "--lane", lane, "--device", device, "--parent", str(os.getpid())]
    return [sys.executable, "-m", "perdure", *own]


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End a worker; what it was at is taken up by the next one."""
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGTERM)
    try:
        worker.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
