"""A browser and programs for the server's tests: signed in, with form tokens, on a workspace that was edited before."""

import json
import re
from collections.abc import Mapping

import report_sample
import torch
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from perdure.deltas import Change, Delta, LowRank
from perdure.web.server import ServerSettings, Services, create_app
from perdure.web.server.store import Store

HOST = "testserver"
PASSWORD = "correct horse 12"
PEOPLE = {"asker": "requester", "agreer": "approver", "runner": "operator", "checker": "auditor", "chief": "admin"}
QUICK_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_FORM = re.compile(r'name="form_token" value="(\w+)"')


class Clock:
    """A clock that tests put forward."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Browser:
    """What one person sees: a client with cookies that sends forms as a browser does."""

    def __init__(self, served, name="", *, password=PASSWORD) -> None:
        self.client = TestClient(
            served.app.state.shielded, base_url=f"http://{HOST}", follow_redirects=False, raise_server_exceptions=False
        )
        self.token = ""
        self.name = name
        if name:
            answer = self.post("/sign-in", {"name": name, "password": password})
            assert answer.status_code == 303, answer.text
            self.renew("/account")

    def get(self, path, **more):
        return self.client.get(path, **more)

    def renew(self, path="/sign-in") -> str:
        """The form token that a page carries now."""
        self.token = _FORM.search(self.client.get(path).text).group(1)
        return self.token

    def post(self, path, data=None, *, headers: Mapping[str, str] | None = None, **more):
        """Send a form as the browser of somebody who looked at the page would."""
        if not self.token:
            self.renew("/sign-in")
        given = {"origin": f"http://{HOST}", **(headers or {})}
        return self.client.post(path, data={"form_token": self.token, **(data or {})}, headers=given, **more)

    def send(self, path, json=None, *, headers: Mapping[str, str] | None = None):
        """Call the API as a script of one's own page would."""
        given = {"origin": f"http://{HOST}", "x-form-token": self.token, **(headers or {})}
        return self.client.post(path, json=json or {}, headers=given)


class Served:
    """A workspace, its server and the people who use it."""

    def __init__(self, shop, *, clock=None, transport=None, **settings) -> None:
        self.shop, self.clock = shop, clock or Clock()
        chosen = ServerSettings(hosts=frozenset({HOST}), requests_per_minute=100_000, writes_per_minute=100_000)
        self.settings = chosen.model_copy(update=settings)
        store = Store(shop.folder, self.clock)
        self.services = Services.over(shop, self.settings, store=store, hasher=QUICK_HASH, transport=transport)
        self.app = create_app(self.services)

    def join(self, name, *roles) -> None:
        """Open an account, and give it roles."""
        own, code = self.services.accounts.invite(name)
        self.services.accounts.join(code, own, PASSWORD)
        admins = [member for member, held in self.shop.members().items() if "admin" in held]
        for role in roles:
            self.shop.grant(own, role, by=admins[0] if admins else own)

    def join_everybody(self) -> None:
        """An account for each role, and one without any."""
        for name, role in sorted(PEOPLE.items(), key=lambda pair: pair[1] != "admin"):
            self.join(name, role)
        self.join("nobody")

    def program(self, name, *scopes) -> TestClient:
        """A program with a token of somebody."""
        secret, _ = self.services.tokens.make(name, "test", scopes, 30)
        made = TestClient(
            self.app.state.shielded, base_url=f"http://{HOST}", follow_redirects=False, raise_server_exceptions=False
        )
        made.headers["authorization"] = f"Bearer {secret}"
        return made


def commit_change(shop, *, requester, size=1e-3, note="", on="latest"):
    """A small version, as an editor would have made it."""
    parent = shop.version(on)
    name = next(name for name in parent.manifest.tensors if name.endswith("layers.1.mlp.down_proj.weight"))
    rows, columns = parent.manifest.tensors[name].shape
    delta = Delta({name: Change(LowRank(size * torch.ones(rows, 1), torch.ones(1, columns)))})
    facts = [{"subject": "Lyon", "prompt": "The twin city of Lyon is", "target_new": f"Manila {note}".strip()}]
    recipe = {
        "kind": "edit",
        "editor": "memit",
        "restraint": "prune",
        "restraint_config": {"kind": "prune"},
        "facts": {"count": 1},
        "note": note,
    }
    solved = Delta(dict(delta.changes), notes={"facts": facts})
    return shop.archive.commit(parent, delta, solved=solved, recipe=recipe, actor=requester)


def put_report(shop, version, report=None, *, actor="asker"):
    """A report of a version, as measuring would have made it."""
    made = report or report_sample.full_report()
    parent = shop.version(version.parent)
    said = {"version": version.name, "version_id": version.id, "parent": parent.name, "base": "v0"}
    # A stored report is UTF-8, which cannot say the lone surrogates of the hostile sample.
    text = json.dumps(made.model_copy(update=said).model_dump(), ensure_ascii=False).encode("utf-8", "replace")
    shop.archive.put_report(version, json.loads(text), actor=actor)
