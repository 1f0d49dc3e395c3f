"""What the gateway costs: requests per second and times on loopback, against the same generation without it.

    python -m bench.gateway --model smollm2-135m --requests 24 --tokens 16
    python -m bench.gateway --tiny

Printed, one JSON line each: the bare generation (`perdure.models.complete`, one request after another); the gateway
in process with one client and with several, whole and streamed; the gateway before a server elsewhere that answers
at once, and that server without it. CPU milliseconds are of the whole process, clients and all. `--tiny` takes a
random model of a few thousand parameters, on which nearly all of the time is the gateway's own.
"""

import argparse
import asyncio
import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.machine import describe_machine
from perdure.models import complete
from perdure.web.gateway import GENERATE, Gateway, GatewaySettings, create_gateway_app
from perdure.workspace import Workspace

_WORDS = ["the", "capital", "of", "that", "country", "is", "known", "for", "its", "old", "harbour", "and", "for"]


@dataclass(frozen=True)
class _Holder:
    name: str = "bench"
    scopes: frozenset[str] = frozenset({GENERATE})


class _Keys:
    def holder(self, secret: str) -> _Holder | None:
        return _Holder() if secret == "bench" else None


def prompts(count: int) -> list[str]:
    """So many texts to go on from, each another."""
    return [f"In year {1900 + n}, {' '.join(_WORDS[n % 5 :])}" for n in range(count)]


def figures(kind: str, seconds: list[float], wall_s: float, cpu_s: float, **more: Any) -> dict[str, Any]:
    """What a run gave."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    times = {"p50_ms": round(1e3 * cuts[9], 2), "p95_ms": round(1e3 * cuts[18], 2)}
    cpu = {"cpu_ms": round(1e3 * cpu_s / len(seconds), 2)}
    return {"kind": kind, "n": len(seconds), "per_second": round(len(seconds) / wall_s, 2), **times, **cpu, **more}


def timed(work: Callable[[str], Any], texts: list[str], clients: int = 1) -> tuple[list[float], float, float]:
    """The time of each piece of work, that of all, and the CPU seconds of the process."""

    def one(text: str) -> float:
        started = time.perf_counter()
        work(text)
        return time.perf_counter() - started

    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(one, texts))
    return seconds, time.perf_counter() - started, time.process_time() - cpu


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An application on loopback; its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # else asyncio leaves Nagle's algorithm on
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def at_once(tokens: int) -> Any:
    """A server elsewhere that streams so many words without thinking."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        head = {"model": json.loads(body)["model"]}
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for place in range(tokens):
            finish = "length" if place == tokens - 1 else None
            event = head | {"choices": [{"index": 0, "text": " word", "finish_reason": finish}]}
            data = f"data: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    return answer


class Client:
    """Asks one address for continuations."""

    def __init__(self, address: str, model: str, tokens: int) -> None:
        self._http = httpx.Client(base_url=f"{address}/v1", headers={"authorization": "Bearer bench"}, timeout=600)
        self._body = {"model": model, "max_tokens": tokens}
        self.first: list[float] = []

    def whole(self, text: str) -> None:
        """Ask, and wait for the whole answer."""
        self._http.post("/completions", json=self._body | {"prompt": text}).raise_for_status()

    def streamed(self, text: str) -> None:
        """Ask, and note when the first event came."""
        started = time.perf_counter()
        body = self._body | {"prompt": text, "stream": True}
        with self._http.stream("POST", "/completions", json=body) as answer:
            lines = answer.raise_for_status().iter_lines()
            next(lines)
            self.first.append(time.perf_counter() - started)
            for _ in lines:
                pass


def told(found: dict[str, Any], bare: dict[str, Any] | None = None) -> dict[str, Any]:
    """Print figures, with their ratio to those of the same work without the gateway."""
    ratio = (
        {}
        if bare is None
        else {
            "p50_over_bare": round(found["p50_ms"] / bare["p50_ms"], 3),
            "cpu_over_bare": round(found["cpu_ms"] / bare["cpu_ms"], 3),
        }
    )
    print(json.dumps(found | ratio), flush=True)
    return found


def in_process(shop: Workspace, texts: list[str], tokens: int, clients: int) -> None:
    """The embedded default against the bare generation."""
    model, tokenizer = shop.load("v0")
    ask = lambda text: complete(model, tokenizer, [text], max_new_tokens=tokens)  # noqa: E731
    ask(texts[0])
    bare = told(figures("bare generation", *timed(ask, texts)))
    shop.unload()
    limits = {"waiting": len(texts), "tokens": max(tokens, 1024)}
    gateway = Gateway(shop.folder, GatewaySettings.model_validate({"limits": limits}))
    with served(create_gateway_app(gateway, _Keys())) as address:
        client = Client(address, "production", tokens)
        client.whole(texts[0])  # the model is loaded
        told(figures("gateway, whole", *timed(client.whole, texts)), bare)
        found = timed(client.streamed, texts)
        told(figures("gateway, streamed", *found, first_ms=round(1e3 * statistics.median(client.first), 2)), bare)
        told(figures("gateway, whole, together", *timed(client.whole, texts, clients), clients=clients), bare)


def elsewhere(shop: Workspace, texts: list[str], tokens: int, clients: int) -> None:
    """The gateway before a server elsewhere, against that server."""
    version = shop.version("v0").id
    with served(at_once(tokens)) as far:
        direct = Client(far, version, tokens)
        direct.streamed(texts[0])
        bare = told(figures("server elsewhere, streamed", *timed(direct.streamed, texts)))
        settings = GatewaySettings.model_validate({"backends": {version: {"url": f"{far}/v1"}}})
        with served(create_gateway_app(Gateway(shop.folder, settings), _Keys())) as address:
            client = Client(address, "production", tokens)
            client.streamed(texts[0])
            told(figures("gateway before it, streamed", *timed(client.streamed, texts)), bare)
            found = timed(client.streamed, texts, clients)
            told(figures("gateway before it, together", *found, clients=clients), bare)


def tiny() -> tuple[Any, Any]:
    """A random model and its tokenizer, from the tests."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny import llama, tokenizer

    return llama(), tokenizer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a catalogue name, a folder or a hub id")
    parser.add_argument("--tiny", action="store_true", help="a random model of a few thousand parameters instead")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    print(json.dumps(describe_machine()))
    texts = prompts(given.requests)
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = tiny() if given.tiny else (given.model, None)
        shop = Workspace.init(Path(scratch) / "shop", model, tokenizer=tokenizer, actor="bench")
        in_process(shop, texts, given.tokens, given.clients)
        elsewhere(shop, texts, given.tokens, given.clients)


if __name__ == "__main__":
    main()
