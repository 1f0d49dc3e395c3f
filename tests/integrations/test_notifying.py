"""Notices: signed webhooks and e-mail to stand-ins on this machine, tried again, in order, never twice by plan."""

import hashlib
import hmac
import json
import socketserver
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from invoking import run, run_json
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import SettingError, WorkspaceError
from perdure.governance.drift import Finding
from perdure.integrations.delivering import send, signature, try_targets
from perdure.integrations.notify_settings import read_settings
from shops import LAX

SECRET = "0123456789abcdef-secret"


class Hook(ThreadingHTTPServer):
    """A receiver that answers with the codes it is told, then 200."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes, self.got = [], []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def events(self):
        return [json.loads(body)["event"] for _, body in self.got]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        code = self.server.codes.pop(0) if self.server.codes else 200
        self.server.got.append((dict(self.headers), body))
        self.send_response(code)
        if code in (301, 302, 307):
            self.send_header("location", self.server.url)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Mailbox(socketserver.ThreadingTCPServer):
    """The least there is of an SMTP server; it refuses recipients at refused.example."""

    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.messages, self.busy, self.grey, self.spam = [], 0, 0, 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self):
        def say(text):
            self.wfile.write(text.encode() + b"\r\n")

        if self.server.busy:
            self.server.busy -= 1
            say("421 busy")
            return
        say("220 here")
        while line := self.rfile.readline():
            word = line.decode().strip().upper()
            if word.startswith("DATA"):
                say("354 go on")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line)
                self.server.messages.append(b"".join(lines).decode())
                say("554 no spam" if self.server.spam else "250 taken")
            elif word.startswith("RCPT") and "REFUSED.EXAMPLE" in word:
                say("550 unknown")
            elif word.startswith("RCPT") and self.server.grey:
                self.server.grey -= 1
                say("450 try again later")
            elif word.startswith("QUIT"):
                say("221 bye")
                return
            else:
                say("250 fine")


@pytest.fixture
def hook():
    with Hook() as made:
        yield made
        made.shutdown()


@pytest.fixture
def mailbox():
    with Mailbox() as made:
        yield made
        made.shutdown()


@pytest.fixture
def shop(tiny_shop, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    (tiny_shop.folder / "policy.toml").write_text(LAX)
    return tiny_shop


def settle(shop, text):
    (shop.folder / "notify.toml").write_text(text + "\n[delivery]\nbackoff_s = 0.5\nattempts = 3\ntimeout_s = 5\n")


def webhook(hook, name="chat", events=""):
    return f'[[webhook]]\nname = "{name}"\nurl = "{hook.url}"\nsecret_env = "HOOK_SECRET"\n{events}\n'


def mail(mailbox, to="mori@example.com"):
    port = mailbox.server_address[1]
    return (
        f'[[mail]]\nname = "post"\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\n'
        f'sender = "perdure@example.com"\nrecipients = ["{to}"]\n'
    )


def commit(shop):
    base = shop.version("v0")
    name = next(name for name in base.manifest.tensors if name.endswith("1.mlp.down_proj.weight"))
    rows, columns = base.manifest.tensors[name].shape
    delta = Delta({name: Change(LowRank(torch.full((rows, 1), 1e-3), torch.ones(1, columns)))})
    return shop.archive.commit(base, delta, solved=delta, recipe={"editor": "memit"}, actor="kato")


def work(shop):
    """Every event but a test, in this order; what is no event between them."""
    version = commit(shop)
    shop.archive.put_report(shop.version("v0"), {"format": 1}, actor="kato")
    report = {"version": "v1", "version_id": version.id, "parent": "v0", "base": "v0", "model": "m", "request": {}}
    shop.archive.put_report(version, report, actor="kato")
    shop.approve("v1", "mori", "well done")
    shop.reject("v1", "mori", "no, prices\nare wrong")
    shop.approve("v1", "mori")
    shop.start_canary("v1", "production", actor="sato")
    shop.end_canary("production", "fall back", actor="sato", reason="slow")
    shop.promote("v1", "production", actor="sato")
    shop.rollback("production", actor="sato")
    shop.break_glass("v1", "staging", "sato", "outage", timedelta(hours=1))
    bad = Finding(measure="retention", subject="all", value=-0.5, low=-0.6, high=-0.4, n=9, limit=-0.02, state="alert")
    for findings in ([bad.model_copy(update={"state": "fine"})], [bad]):
        shop.archive.put_observation(version, "staging", findings, actor="perdure", policy="p")


EVENTS = ["candidate ready", "approved", "rejected", "approved", "canary ended", "promoted", "rolled back",
          "break-glass", "drift alert"]  # fmt: skip


def test_every_event_is_told_once_signed_and_in_order(shop, hook):
    settle(shop, webhook(hook))
    assert [one.delivered for one in send(shop)] == [0]  # from now on
    work(shop)
    (told,) = send(shop)
    assert (told.delivered, told.refused, told.waiting) == (9, 0, "")
    assert hook.events == EVENTS
    for headers, body in hook.got:
        found = {name.lower(): value for name, value in headers.items()}
        signed = hmac.new(SECRET.encode(), found["x-perdure-timestamp"].encode() + b"." + body, hashlib.sha256)
        assert found["x-perdure-signature"] == f"sha256={signed.hexdigest()}"
        assert found["x-perdure-delivery"] == json.loads(body)["hash"]
    first, loud = json.loads(hook.got[0][1]), json.loads(hook.got[7][1])
    assert (first["version"], first["actor"], first["workspace"]) == ("v1", "kato", "shop")
    assert loud["text"] == "THE GLASS WAS BROKEN: sato lets staging hold v1 without consent: outage"
    assert send(shop)[0].delivered == 0


def test_what_fails_for_now_is_tried_again_with_growing_pauses(shop, hook):
    settle(shop, webhook(hook))
    send(shop)
    work(shop)
    pauses = []
    hook.codes = [500, 429]
    assert send(shop, sleep=pauses.append)[0].delivered == 9
    assert pauses == [0.5, 1.0]
    assert hook.events[:3] == ["candidate ready"] * 3


def test_what_waits_keeps_its_place(shop, hook):
    settle(shop, webhook(hook) + webhook(hook, "loud", 'events = ["break-glass"]'))
    send(shop)
    work(shop)
    hook.codes = [200, 503, 503, 503]
    chat, loud = send(shop, sleep=lambda seconds: None)
    assert (chat.delivered, chat.waiting) == (1, "chat answered 503") and loud.delivered == 1
    assert send(shop)[0].delivered == 8
    assert hook.events[5:] == EVENTS[1:]


def test_what_is_refused_for_good_does_not_hold_up_the_rest(shop, hook):
    settle(shop, webhook(hook))
    send(shop)
    work(shop)
    hook.codes = [400, 302]  # a redirect is not followed
    (told,) = send(shop)
    assert (told.delivered, told.refused) == (7, 2)
    assert len(hook.got) == 9


def test_mail(shop, mailbox):
    settle(shop, mail(mailbox))
    send(shop)
    work(shop)
    mailbox.busy = 1
    assert send(shop, sleep=lambda seconds: None)[0].delivered == 9
    assert len(mailbox.messages) == 9
    assert "Subject: perdure shop: break-glass v1 staging" in mailbox.messages[7]
    assert "To: mori@example.com" in mailbox.messages[7] and "outage" in mailbox.messages[7]
    settle(shop, mail(mailbox, "mori@refused.example"))
    shop.promote("v0", "staging", actor="sato")
    assert send(shop)[0].refused == 1


def test_nobody_there_holds_nothing_up(shop, hook):
    url = hook.url
    hook.shutdown()
    hook.server_close()
    settle(shop, webhook(hook).replace(hook.url, url))
    send(shop)
    shop.promote("v0", "staging", actor="sato")
    assert "ConnectError" in send(shop, sleep=lambda seconds: None)[0].waiting
    assert shop.archive.aliases()["staging"].name == "v0"


def test_a_missing_secret_waits(shop, hook, monkeypatch):
    settle(shop, webhook(hook))
    send(shop)
    shop.promote("v0", "staging", actor="sato")
    monkeypatch.delenv("HOOK_SECRET")
    assert "HOOK_SECRET is not set" in send(shop)[0].waiting
    monkeypatch.setenv("HOOK_SECRET", "short")
    assert "needs 16" in try_targets(shop, actor="sato")[0].waiting
    assert hook.got == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[webhook]]\nname="a"\nurl="http://example.com"\nsecret_env="S"', "https"),
        ('[[webhook]]\nname="a"\nurl="file:///etc/passwd"\nsecret_env="S"', "https"),
        ('[[webhook]]\nname="a"\nurl="https://me:pw@example.com"\nsecret_env="S"', "no password"),
        ('[[webhook]]\nname="a"\nurl="https://example.com"\nsecret="x"', "secret"),
        ('[[webhook]]\nname="a"\nurl="https://example.com"\nsecret_env="S"\nevents=["lunch"]', "candidate ready"),
        ('[[mail]]\nname="a"\nhost="mx.example.com"\nsecurity="none"\nsender="a@b"\nrecipients=["c@d"]', "starttls"),
        ('[[mail]]\nname="a"\nhost="mx.example.com"\nsender="a@b\\nBcc: x@y"\nrecipients=["c@d"]', "sender"),
        ('[[mail]]\nname="a"\nhost="h"\nsender="a@b"\nrecipients=[]', "recipients"),
        ("[[webhook]\n", "no TOML"),
        ("[webhooks]\n", "webhooks"),
    ],
)
def test_settings_that_are_refused(tmp_path, text, words):
    (tmp_path / "notify.toml").write_text(text)
    with pytest.raises(SettingError, match=words):
        read_settings(tmp_path)


def test_a_signature_by_hand():
    # printf '1.{}' | openssl dgst -sha256 -hmac key
    assert signature(b"key", "1", b"{}") == "sha256=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"


def test_the_commands(shop, hook, mailbox, monkeypatch):
    started = []
    monkeypatch.setattr("perdure.cli.options.subprocess.Popen", lambda words, **more: started.append((words, more)))
    run("notify", "test", "-w", shop.folder, error=SettingError)
    settle(shop, webhook(hook) + mail(mailbox))
    told = run_json("notify", "test", "-w", shop.folder, "--as", "sato")
    assert [one["delivered"] for one in told] == [1, 1] and hook.events == ["test"]
    assert started == []
    before = shop.archive.log(1)[-1].sequence
    run("promote", "v0", "staging", "-w", shop.folder)
    ((words, more),) = started
    assert words[3:7] == ["notify", "send", "--after", str(before)] and more["start_new_session"]
    run(*words[3:])
    assert hook.events == ["test", "promoted"]
    hook.codes = [400]
    run("notify", "test", "-w", shop.folder, error=WorkspaceError)


def test_mail_that_is_refused_for_now_waits_and_what_is_refused_for_good_does_not(shop, mailbox):
    settle(shop, mail(mailbox, "mori@grey.example"))
    send(shop)
    shop.promote("v0", "staging", actor="sato")
    mailbox.grey = 3
    (told,) = send(shop, sleep=lambda seconds: None)
    assert (told.delivered, told.refused) == (0, 0) and "450" in told.waiting
    assert send(shop)[0].delivered == 1
    shop.promote("v0", "shadow", actor="sato")
    mailbox.spam = 1
    (told,) = send(shop, sleep=lambda seconds: None)
    assert (told.delivered, told.refused, told.waiting) == (0, 1, "")


def test_where_nothing_happened_nothing_is_written(shop, hook):
    settle(shop, webhook(hook))
    send(shop)
    state = shop.folder / "notified.json"
    before = state.stat().st_ino
    send(shop)
    assert state.stat().st_ino == before
