"""Delivering notices: what the ledger says since last time, to each target in order, tried again after failures.

Nothing here is called while a workspace is written to. The ledger itself is what waits to be sent, so a crash loses
nothing; a notice may come twice, with the same `hash`.
"""

import fcntl
import hashlib
import hmac
import json
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from perdure.content import write_atomic
from perdure.errors import PerdureError, SettingError
from perdure.integrations.notices import Notice, notices_of
from perdure.integrations.notify_settings import FILE, Delivery, Mail, Webhook, read_settings
from perdure.workspace.ledger import now

if TYPE_CHECKING:
    from perdure.workspace import Workspace

STATE, LOCK = "notified.json", "notify.lock"
_FOR_NOW = frozenset({408, 425, 429})  # answers that may be others later, like all from 500 on
_FOR_GOOD = 500  # codes of SMTP below it, such as that of greylisting, may be others later (RFC 5321, 4.2.1)
Sleep = Callable[[float], None]


class UndeliveredError(PerdureError):
    """A notice that a target did not take.

    Attributes:
        lasting: Whether it would not take it later either.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class Sent:
    """What became of the notices for one target.

    Attributes:
        target: Its name.
        delivered: How many it took.
        refused: How many it will never take; they are not tried again.
        waiting: Why the rest waits for the next time; empty when nothing does.
    """

    target: str
    delivered: int = 0
    refused: int = 0
    waiting: str = ""


def send(shop: "Workspace", *, after: int | None = None, sleep: Sleep = time.sleep) -> list[Sent]:
    """Send each target of `notify.toml` what happened since it last heard; a new one hears from now on.

    Args:
        shop: The workspace.
        after: The row of the ledger after which a new target hears; the last one when not given.
        sleep: Waits between tries.

    Raises:
        SettingError: `notify.toml` is not valid.
    """
    settings = read_settings(shop.folder)
    if settings is None:
        return []
    with _alone(shop.folder):
        heard = _read_state(shop.folder)
        last = shop.archive.log(1)[-1].sequence
        first = last if after is None else after
        state = {target.name: min(heard.get(target.name, first), last) for target in settings.targets}
        if state != heard:
            _write_state(shop.folder, state)
        notices = list(notices_of(shop, shop.archive.log(after=min(state.values(), default=last))))
        this = _Round(shop.folder, settings.delivery, state, sleep)
        return [this.tell(target, notices, last) for target in settings.targets]


@dataclass
class _Round:
    """One round of sending: where the state is kept, how hard is tried, up to where each target has heard."""

    folder: Path
    delivery: Delivery
    state: dict[str, int]
    sleep: Sleep

    def tell(self, target: Webhook | Mail, notices: list[Notice], last: int) -> Sent:
        """Give a target what it has not heard; it stops at the first that waits, so that the order holds."""
        delivered = refused = 0
        for notice in notices:
            if notice.sequence <= self.state[target.name] or not target.wants(notice.event):
                continue
            try:
                deliver(target, notice, self.delivery, sleep=self.sleep)
                delivered += 1
            except (UndeliveredError, SettingError) as error:
                if not getattr(error, "lasting", False):
                    return Sent(target.name, delivered, refused, str(error))
                refused += 1
            self._heard(target, notice.sequence)
        self._heard(target, last)
        return Sent(target.name, delivered, refused)

    def _heard(self, target: Webhook | Mail, row: int) -> None:
        if self.state[target.name] != row:
            self.state[target.name] = row
            _write_state(self.folder, self.state)


def try_targets(shop: "Workspace", *, actor: str, sleep: Sleep = time.sleep) -> list[Sent]:
    """Send every target a test.

    Raises:
        SettingError: There is no `notify.toml`, or it is not valid.
    """
    settings = read_settings(shop.folder)
    if settings is None or not settings.targets:
        raise SettingError(f"nobody is named in {shop.folder / FILE}; see docs/monitoring.md for what stands there")
    text = f"a test of {FILE}, asked for by {actor}"
    notice = Notice("test", shop.folder.resolve().name, "", "", actor, now(), text, 0, hashlib.sha256().hexdigest())
    found = []
    for target in settings.targets:
        try:
            deliver(target, notice, settings.delivery, sleep=sleep)
            found.append(Sent(target.name, 1))
        except (UndeliveredError, SettingError) as error:
            found.append(Sent(target.name, waiting=str(error)))
    return found


def deliver(target: Webhook | Mail, notice: Notice, delivery: Delivery, *, sleep: Sleep = time.sleep) -> None:
    """Give a target one notice, tried again after each failure that may pass, with growing pauses.

    Raises:
        UndeliveredError: It did not take it.
    """
    for attempt in range(delivery.attempts):
        try:
            if isinstance(target, Webhook):
                _post(target, notice, delivery.timeout_s)
            else:
                _mail(target, notice, delivery.timeout_s)
            return
        except UndeliveredError as error:
            if error.lasting or attempt == delivery.attempts - 1:
                raise
            sleep(delivery.backoff_s * 2**attempt)


# Webhooks


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What the header X-Perdure-Signature holds: sha256=HMAC-SHA256(secret, timestamp + "." + body), in hex."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _post(target: Webhook, notice: Notice, timeout_s: float) -> None:
    body, stamp = notice.body(), str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "user-agent": "perdure",
        "x-perdure-event": notice.event,
        "x-perdure-delivery": notice.hash,
        "x-perdure-timestamp": stamp,
        "x-perdure-signature": signature(target.secret, stamp, body),
    }
    try:
        # No redirects and no proxies of the environment: what stands in notify.toml is asked, and nothing else.
        with httpx.Client(timeout=timeout_s, follow_redirects=False, trust_env=False) as client:
            status = client.post(target.url, content=body, headers=headers).status_code
    except httpx.HTTPError as error:
        raise UndeliveredError(f"{target.name}: {type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        lasting = status < 500 and status not in _FOR_NOW
        raise UndeliveredError(f"{target.name} answered {status}", lasting=lasting)


# E-mail


def _mail(target: Mail, notice: Notice, timeout_s: float) -> None:
    try:
        with _server(target, timeout_s) as server:
            if target.username:
                server.login(target.username, target.password)
            server.send_message(_message(target, notice))
    except smtplib.SMTPRecipientsRefused as error:
        lasting = all(code >= _FOR_GOOD for code, _ in error.recipients.values())
        raise UndeliveredError(f"{target.name}: an address was refused: {error}", lasting=lasting) from error
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        lasting = error.smtp_code >= _FOR_GOOD
        raise UndeliveredError(f"{target.name}: the mail was refused: {error}", lasting=lasting) from error
    except (smtplib.SMTPException, OSError) as error:
        raise UndeliveredError(f"{target.name}: {type(error).__name__}: {error}") from error


@contextmanager
def _server(target: Mail, timeout_s: float) -> Iterator[smtplib.SMTP]:
    if target.security == "tls":
        with smtplib.SMTP_SSL(
            target.host, target.port, timeout=timeout_s, context=ssl.create_default_context()
        ) as server:
            yield server
        return
    with smtplib.SMTP(target.host, target.port, timeout=timeout_s) as server:
        if target.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        yield server


def _message(target: Mail, notice: Notice) -> EmailMessage:
    message = EmailMessage()
    subject = " ".join(filter(None, (notice.event, notice.version, notice.alias)))
    message["Subject"] = f"perdure {notice.workspace}: {subject}".replace("\n", " ").replace("\r", " ")
    message["From"], message["To"] = target.sender, ", ".join(target.recipients)
    message["Message-ID"] = f"<{notice.hash[:32]}.{target.name}@perdure>"
    rows = [notice.text, "", f"by {notice.actor}, {notice.time} UTC", f"ledger row {notice.sequence}, {notice.hash}"]
    message.set_content("\n".join(rows).encode("utf-8", "replace").decode())
    return message


# The state


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One sender at a time; the lock is freed by the system when its holder dies."""
    with (folder / LOCK).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_state(folder: Path) -> dict[str, int]:
    """Up to which row of the ledger each target has heard."""
    try:
        found = json.loads((folder / STATE).read_text())
        return {str(name): int(row) for name, row in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_state(folder: Path, state: dict[str, int]) -> None:
    write_atomic(folder / STATE, json.dumps(state).encode())
