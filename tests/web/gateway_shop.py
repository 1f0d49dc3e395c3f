"""A workspace of three versions of the tiny Llama, served on loopback."""

import asyncio
import json
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import torch
import uvicorn

import tiny
from perdure.deltas import Change, Delta, LowRank
from perdure.governance.canary import CanaryPlan
from perdure.web.gateway import Gateway, GatewaySettings, create_gateway_app
from perdure.workspace import Workspace
from shops import LAX

DOWN = "model.layers.{}.mlp.down_proj.weight"
GOOD = {"authorization": "Bearer good"}
PLAN = CanaryPlan(weights=(0.3, 0.6), hold_seconds=0, hold_requests=20, success=0.2, failure=0.3)


@dataclass
class Holder:
    name: str = "app"
    scopes: frozenset = frozenset({"generate"})


class FakeKeys:
    """Two tokens: one for asking, one for reading."""

    def holder(self, secret):
        found = {"good": Holder(), "other": Holder("other"), "reader": Holder(scopes=frozenset({"read"}))}
        return found.get(secret)


def change(seed, scale=0.5):
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(32, 2, generator=generator) * scale, torch.randn(2, 48, generator=generator))
    return Delta({DOWN.format(1): Change(factors)})


def build(folder):
    """v0 in production; v1 and v2 approved; v3 not."""
    shop = Workspace.init(folder, tiny.llama(), tokenizer=tiny.tokenizer(), actor="kato")
    (folder / "policy.toml").write_text(LAX)
    policy = shop.settle_policy("kato").digest
    for number in (1, 2, 3):
        parent, delta = shop.version("v0"), change(number)
        version = shop.archive.commit(parent, delta, solved=delta, recipe={"editor": "x"}, actor="kato")
        report = shop.archive.put_report(version, {"n": number}, actor="kato")
        if number < 3:
            shop.archive.approve(version, report=report, policy=policy, actor="mori")
    return folder


def settings(**sections):
    return GatewaySettings.model_validate(sections)


@asynccontextmanager
async def opened(folder, found=None, **more):
    """A gateway and a client of it; the client sees an answer when it is whole."""
    gateway = Gateway(folder, found, **more)
    app = create_gateway_app(gateway, FakeKeys(), hosts=frozenset({"gate"}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gate/v1", headers=GOOD) as client:
        try:
            yield gateway, client
        finally:
            await gateway.close()


@contextmanager
def served(app):
    """The application on loopback; its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
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


def events(text):
    """The JSON of the events of a stream, and whether it said that it is done."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1:] == ["[DONE]"]


def streamed(text):
    """The text that the events of a stream add up to."""
    found, _ = events(text)
    choices = [choice for event in found for choice in event["choices"]]
    return "".join(choice.get("text", "") or choice.get("delta", {}).get("content", "") for choice in choices)
