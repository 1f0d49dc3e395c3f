"""The client and the program: a real server on this machine, asked by a real client."""

import socket
import threading
import time

import pytest
import uvicorn
from browsing import Served, commit_change

from invoking import run, run_json
from perdure.client import Client, ServerError
from perdure.errors import RefusedError, SettingError, UnknownNameError
from perdure.web.server import jobs
from perdure.web.server.running import Listening, command
from perdure.web.server.worker import Worker
from perdure.workspace import Workspace


@pytest.fixture
def listening(served):
    """The served workspace behind a socket; the address and a token with every role and scope."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    real = Served(served.shop, clock=served.clock, hosts=frozenset({f"127.0.0.1:{port}"}))
    config = uvicorn.Config(real.app.state.shielded, host="127.0.0.1", port=port, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        pass
    real.join("all", "requester", "approver", "operator", "auditor")
    secret, _ = real.services.tokens.make("all", "client", ["read", "request", "operate", "kpis"], 1)
    yield real, f"http://127.0.0.1:{port}", secret
    server.should_exit = True
    thread.join(10)


def test_a_program_looks_asks_and_is_refused_what_people_decide(listening):
    served, url, token = listening
    client = Client(url, token)
    assert client.me()["name"] == "all" and client.me()["way"] == "token"
    commit_change(served.shop, requester="asker")
    assert [row["name"] for row in client.versions()] == ["v2", "v1", "v0"]
    card = client.version("v1")
    assert card["status"] == "candidate" and card["verdict"] == "pass" and card["required"] == 1
    assert client.report("v1")["version"] == "v1"
    assert client.aliases()["production"]["name"] == "v0"
    assert client.history("production")[0]["kind"] == "promote"
    assert client.search("Lyon")[0]["shown"]["target_new"] == "Manila"
    assert client.monitor()[0]["name"] == "kept"
    kpi = {"name": "rework", "unit": "h", "better": "lower", "value": 7, "version": "v1"}
    client.enter_kpis([{**kpi, "period_start": "2026-03-01", "period_end": "2026-03-31"}])
    assert [row["version"] for row in client.kpis()] == ["v1"] and client.compare_kpis("v0", "v1")["kpis"] == []
    rows = list(client.ledger())
    assert rows[-1]["sequence"] == 1 and len(rows) == rows[0]["sequence"]
    assert client.policy()["digest"] == served.shop.policy.digest
    with pytest.raises(ServerError) as refused:
        client.promote("v1", "production")
    assert refused.value.status == 409 and refused.value.kind == "RefusedError"
    served.shop.approve("v1", "agreer")
    client.promote("v1", "production", held="v0")
    assert client.rollback("production")["version"] == "v0"
    with pytest.raises(ServerError) as denied:
        client._post("/versions/v1/approve", {})
    assert denied.value.status == 403


def test_answers_and_requests_are_waited_for(listening):
    served, url, token = listening
    client, over = Client(url, token), threading.Event()
    worker = Worker(Workspace.open(served.shop.folder), served.services.store, jobs.QUESTIONS)
    thread = threading.Thread(target=lambda: worker.run(go_on=lambda: not over.is_set()))
    thread.start()
    try:
        answers = client.ask("Ada speaks", "v1", "v0", tokens=3)
    finally:
        over.set()
        thread.join(10)
    assert set(answers) == {"v0", "v1"}
    with pytest.raises(ServerError) as wrong:
        client.teach([{"subject": "Ada", "prompt": "Bob", "target_new": "x"}])
    assert wrong.value.status == 422 and wrong.value.problems
    job = client.teach([{"subject": "Ada", "prompt": "Ada speaks", "target_new": "Dutch"}], on="v0", note="why")
    assert (job["state"], client.job(job["id"])["requester"]) == ("queued", "all")
    served.services.jobs.stop(job["id"])
    with pytest.raises(ServerError, match="stopped"):
        client.wait(job)


def test_a_token_does_not_travel_in_the_clear(served):
    with pytest.raises(SettingError):
        Client("http://perdure.example.com", "x")
    with pytest.raises(ServerError):
        Client("http://127.0.0.1:9", "x", timeout=1).me()


def test_without_tls_the_server_stays_on_this_machine(tmp_path):
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(SettingError):
            Listening(host=host).settings()
    with pytest.raises(SettingError):
        Listening(certificate=tmp_path / "cert.pem").settings()
    behind = Listening(port=8321, names=("perdure.example.com",), behind_tls=True).settings()
    assert behind.secure and "perdure.example.com" in behind.hosts and "evil.example" not in behind.hosts
    assert Listening().settings().hosts == {"127.0.0.1:8321", "localhost:8321", "[::1]:8321"}


def test_somebody_is_invited_on_the_command_line(empty):
    folder, empty.clock.now = empty.shop.folder, time.time()
    found = run_json("invite", "mori", "--role", "admin", "--as", "mori", "-w", folder)
    assert empty.services.accounts.join(found["code"], "mori", "a long pass word") == "mori"
    assert empty.shop.roles("mori") == {"admin"}
    run("invite", "ito", "--role", "approver", "--as", "sato", "-w", folder, error=RefusedError)
    run("invite", "ito", "--role", "boss", "--as", "mori", "-w", folder, error=SettingError)
    assert {row["details"].get("account") for row in run_json("log", "-w", folder)} == {None, "mori"}
    run("work", "--lane", "nothing", "-w", folder, error=UnknownNameError)
    assert command(folder, "changes", "cpu")[1:4] == ["-m", "perdure", "work"]


def test_serve_prints_a_code_once(empty, monkeypatch):
    monkeypatch.setattr("perdure.web.server.running.serve", lambda *given, **more: None)
    empty.clock.now = time.time()
    result = run("serve", "-w", empty.shop.folder)
    code = next(word for word in result.output.split() if word.startswith("setup-"))
    assert empty.services.accounts.set_up(code, "chief", "a long pass word") == "chief"
    assert "setup-" not in run("serve", "-w", empty.shop.folder).output
