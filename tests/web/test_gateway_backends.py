"""Versions answered by servers elsewhere: only where the file says, only with what was checked, streams passed on."""

import asyncio
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from gateway_shop import build, events, opened, settings, streamed

from perdure.errors import SettingError
from perdure.web.gateway import read_settings
from perdure.web.gateway.settings import Limits
from perdure.workspace import Workspace

ASK = {"model": "v1", "prompt": "Lyon is", "max_tokens": 8}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("backends") / "shop")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "shop")


class Stub(BaseHTTPRequestHandler):
    """A server that says three words, or what its test has it say instead."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        status, kind, pieces = self.server.says(self.path, body)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *_):
        pass


def data(**event):
    return f"data: {json.dumps(event)}\n\n".encode()


def three_words(path, body, finish="stop", model=None):
    name = model or body["model"]
    chat = path.endswith("/chat/completions")
    for word in ("one", " two", " three"):
        text = {"delta": {"content": word}} if chat else {"text": word}
        yield data(model=name, choices=[{"index": 0, **text, "finish_reason": None}])
    yield data(model=name, choices=[{"index": 0, **({"delta": {}} if chat else {"text": ""}), "finish_reason": finish}])
    yield data(model=name, choices=[], usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})
    yield b"data: [DONE]\n\n"


STREAM = "text/event-stream; charset=utf-8"


def usual(path, body):
    return 200, STREAM, three_words(path, body)


@contextmanager
def stub(says=usual):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.asked, server.says = [], says
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def backed(folder, url, ref="v1", **more):
    version = Workspace.open(folder).version(ref).id
    return settings(backends={version: {"url": url, **more}})


def asked(folder, found, *bodies, path="/completions"):
    async def run():
        async with opened(folder, found) as (gateway, client):
            answers = [await client.post(path, json=body) for body in bodies]
            gateway.recorder.flush()
            return answers, gateway.traffic.counts()

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["/completions", "/chat/completions"])
def test_answers_are_passed_on_streamed_and_whole(folder, path):
    said = {"prompt": "Lyon is"} if path == "/completions" else {"messages": [{"role": "user", "content": "Lyon?"}]}
    body = {"model": "v1", "max_tokens": 8, **said}
    with stub() as (server, url):
        (whole, stream), counts = asked(folder, backed(folder, url), body, body | {"stream": True}, path=path)
    choice = whole.json()["choices"][0]
    assert (choice.get("text") or choice["message"]["content"]) == "one two three" == streamed(stream.text)
    assert whole.json()["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert events(stream.text)[1]
    assert (whole.json()["model"], whole.headers["x-perdure-version"]) == ("v1", "v1")
    version = Workspace.open(folder).version("v1").id
    assert counts == {(version, "answered"): 2}
    where, headers, sent = server.asked[0]
    assert where == f"/v1{path}"
    options = {"max_tokens": 8, "temperature": 0.0, "stream": True, "stream_options": {"include_usage": True}}
    assert sent == {"model": version, **said, **options}
    assert "good" not in str(headers)  # the client's token stays here


def test_versions_without_a_backend_are_answered_in_process(folder):
    with stub() as (server, url):
        (here, there), _ = asked(folder, backed(folder, url), ASK | {"model": "v0"}, ASK)
    assert (here.json()["model"], there.json()["choices"][0]["text"]) == ("v0", "one two three")
    assert len(server.asked) == 1


def test_a_backend_has_its_name_for_the_version_and_its_key(folder, monkeypatch):
    monkeypatch.setenv("BACKEND_KEY", "sesame")
    with stub() as (server, url):
        found = backed(folder, url, model="mine", key_variable="BACKEND_KEY")
        (answer,), _ = asked(folder, found, ASK | {"temperature": 1, "top_p": 0.5, "seed": 3, "stop": "x"})
    _, headers, sent = server.asked[0]
    assert answer.status_code == 200
    assert (headers["authorization"], sent["model"]) == ("Bearer sesame", "mine")
    assert sent.items() >= {"temperature": 1.0, "top_p": 0.5, "seed": 3}.items()
    assert sent["stop"] == ["x"]


@pytest.mark.parametrize(
    ("says", "status", "code", "counted"),
    [
        (lambda *_: (500, "text/plain", [b"secret place"]), 502, "backend_failed", "failed"),
        (lambda *_: (302, "text/plain", []), 502, "backend_failed", "failed"),
        (lambda *_: (429, "application/json", [b"{}"]), 503, "backend_busy", "failed"),
        (lambda *_: (400, "application/json", [b'{"error": {"message": "too long"}}']), 400, "invalid_value", None),
        (lambda *_: (200, "text/html", [b"<html>"]), 502, "backend_failed", "failed"),
        (lambda *_: (200, STREAM, [b"data: nonsense\n\n"]), 502, "backend_failed", "failed"),
        (lambda *_: (200, STREAM, [b'data: {"error": {}}\n\n']), 502, "backend_failed", "failed"),
        (lambda path, body: (200, STREAM, three_words(path, body, model="x")), 502, "backend_wrong", "failed"),
        (lambda path, body: (200, STREAM, [data(model=body["model"], choices=[3])]), 502, "backend_failed", "failed"),
        (lambda path, body: (200, STREAM, list(three_words(path, body))[:2]), 502, "backend_failed", "failed"),
    ],
)
def test_a_backend_that_does_not_answer_is_told_and_counted(folder, says, status, code, counted):
    with stub(says) as (_, url):
        (answer,), counts = asked(folder, backed(folder, url), ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret place" not in answer.text
    assert url not in answer.text
    assert [kind for _, kind in counts] == ([counted] if counted else [])


def test_a_silent_and_an_absent_backend(folder):
    wait = threading.Event()
    with stub(lambda *_: (200, STREAM, [wait.wait(5) and b""])) as (_, url):
        (silent,), _ = asked(folder, backed(folder, url, silent_seconds=0.2), ASK)
        wait.set()
    assert (silent.status_code, silent.json()["error"]["code"]) == (504, "backend_timeout")
    (absent,), _ = asked(folder, backed(folder, url), ASK)
    assert (absent.status_code, absent.json()["error"]["code"]) == (502, "backend_unreachable")


def test_a_stream_that_breaks_off_says_so(folder):
    with stub(lambda path, body: (200, STREAM, list(three_words(path, body))[:2])) as (_, url):
        (answer,), _ = asked(folder, backed(folder, url), ASK | {"stream": True})
    found, done = events(answer.text)
    assert (answer.status_code, found[-1]["error"]["code"], done) == (200, "backend_failed", False)


def test_the_file_of_the_workspace_names_backends(folder):
    version = Workspace.open(folder).version("v1").id
    (folder / "gateway.toml").write_text(
        f'[backends.{version}]\nurl = "http://127.0.0.1:1/v1/"\n[limits]\ntokens = 9\n'
    )
    found = read_settings(folder)
    assert (found.backends[version].url, found.limits.tokens) == ("http://127.0.0.1:1/v1", 9)


@pytest.mark.parametrize(
    "text",
    [
        "[backends.v1]\nurl = 'http://a'\n",
        "[backends.%s]\nurl = 'ftp://a'\n",
        "[backends.%s]\nurl = 'http://me:secret@a'\n",
        "[backends.%s]\nurl = 'file:///etc/passwd'\n",
        "[backends.%s]\n",
        "[limit]\ntokens = 3\n",
        "[limits]\ntokens = 0\n",
        "nonsense",
    ],
)
def test_a_wrong_file_is_refused(folder, text):
    version = Workspace.open(folder).version("v1").id
    (folder / "gateway.toml").write_text(text.replace("%s", version))
    with pytest.raises(SettingError, match=r"gateway\.toml"):
        read_settings(folder)


def test_signs_of_life_alone_do_not_hold_an_answer_open(folder):
    over = threading.Event()

    def pings():
        while not over.wait(0.05):
            yield b": still here\n\n"

    with stub(lambda *_: (200, STREAM, pings())) as (_, url):
        found = backed(folder, url).model_copy(update={"limits": Limits(seconds=0.5)})
        threading.Timer(8, over.set).start()
        (answer,), _ = asked(folder, found, ASK)
        over.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
