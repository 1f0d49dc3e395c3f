"""Requests reach the version that they name, streamed or whole, and nothing else is answered."""

import asyncio
import shutil
import threading
import time

import httpx
import pytest
from gateway_shop import FakeKeys, build, events, opened, served, settings, streamed

from perdure.models import complete
from perdure.web.gateway import Gateway, create_gateway_app
from perdure.workspace import Workspace

PROMPT = "The twin city of Lyon is"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("gateway") / "shop")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "shop")


def ask(model, **more):
    return {"model": model, "prompt": PROMPT, "max_tokens": 12, **more}


def talk(model, text=PROMPT, **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 12, **more}


def by_workspace(folder, ref, prompt=PROMPT, tokens=12):
    shop = Workspace.open(folder)
    with shop.answering(ref, prompt) as by:
        return complete(by.model, by.tokenizer, [prompt], max_new_tokens=tokens)[0]


def test_streamed_whole_and_workspace_answers_are_equal(folder):
    async def run():
        async with opened(folder) as (_, client):
            for path, body in (("/completions", ask), ("/chat/completions", talk)):
                for ref in ("v0", "v1"):
                    whole = (await client.post(path, json=body(ref))).raise_for_status()
                    stream = await client.post(path, json=body(ref, stream=True))
                    yield ref, whole, stream

    async def collect():
        return [found async for found in run()]

    texts = {}
    for ref, whole, stream in asyncio.run(collect()):
        choice = whole.json()["choices"][0]
        text = choice.get("text") or choice["message"]["content"]
        assert text == streamed(stream.text) == texts.setdefault(ref, by_workspace(folder, ref))
        assert events(stream.text)[1]
        assert whole.headers["x-perdure-version"] == stream.headers["x-perdure-version"] == ref
        assert whole.json()["model"] == ref == whole.json()["perdure"]["version"]
        assert {event["model"] for event in events(stream.text)[0]} == {ref}
    assert texts["v0"] != texts["v1"]


def test_usage_and_the_reason_of_the_end(folder):
    async def run():
        async with opened(folder) as (_, client):
            body = ask("production", stream=True, stream_options={"include_usage": True})
            first = await client.post("/completions", json=ask("production"))
            return first.json(), await client.post("/completions", json=body)

    whole, stream = asyncio.run(run())
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"] == {"prompt_tokens": len(PROMPT), "completion_tokens": 12, "total_tokens": len(PROMPT) + 12}
    assert events(stream.text)[0][-1]["usage"] == whole["usage"]


def test_a_stop_ends_the_answer_and_is_no_part_of_it(folder):
    text = by_workspace(folder, "v0", tokens=40)
    stop = text[9:12]

    async def run():
        async with opened(folder) as (_, client):
            whole = await client.post("/completions", json=ask("v0", max_tokens=40, stop=stop))
            stream = await client.post("/completions", json=ask("v0", max_tokens=40, stop=[stop], stream=True))
            return whole.json()["choices"][0], stream.text

    choice, stream = asyncio.run(run())
    assert choice == {"index": 0, "text": text[: text.index(stop)], "logprobs": None, "finish_reason": "stop"}
    assert streamed(stream) == choice["text"]


def test_draws_repeat_with_their_seed_alone(folder):
    async def run():
        async with opened(folder) as (_, client):
            asked = [{"seed": 7}, {"seed": 7}, {"seed": 8}]
            answers = [await client.post("/completions", json=ask("v0", temperature=1.5, **more)) for more in asked]
            return [answer.json()["choices"][0]["text"] for answer in answers]

    first, again, other = asyncio.run(run())
    assert first == again != other


def test_a_moved_alias_counts_from_the_next_request_on(folder):
    async def run():
        async with opened(folder) as (_, client):
            yield (await client.post("/completions", json=ask("production"))).json()
            shop = Workspace.open(folder)
            shop.promote("v1", "production", actor="sato")
            yield (await client.post("/completions", json=ask("production"))).json()
            shop.rollback("production", actor="sato")
            yield (await client.post("/completions", json=ask("production"))).json()

    async def collect():
        return [answer async for answer in run()]

    assert [answer["model"] for answer in asyncio.run(collect())] == ["v0", "v1", "v0"]


def test_models_are_aliases_and_versions_that_may_answer(folder):
    async def names(found):
        async with opened(folder, found) as (_, client):
            listed = (await client.get("/models")).json()["data"]
            unapproved = await client.post("/completions", json=ask("v3"))
            return {row["id"] for row in listed}, unapproved.status_code, (await client.get("/models/v1")).json()

    found, status, one = asyncio.run(names(settings()))
    assert (found, status, one["perdure"]["status"]) == ({"production", "v0", "v1", "v2"}, 403, "approved")
    found, status, _ = asyncio.run(names(settings(serving={"unapproved": True})))
    assert (found, status) == ({"production", "v0", "v1", "v2", "v3"}, 200)
    Workspace.open(folder).reject("v1", "mori", "wrong")
    assert "v1" not in asyncio.run(names(settings(serving={"unapproved": True})))[0]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (ask("nobody"), 404, "model_not_found"),
        (ask("latest"), 404, "model_not_found"),
        (ask("production", max_tokens=5000), 400, "too_many_tokens"),
        (ask("production", max_tokens=0), 400, "invalid_value"),
        (ask("production", max_tokens=900), 400, "context_length_exceeded"),
        (ask("production", prompt=""), 400, "invalid_value"),
        (ask("production", prompt=["a", "b"]), 400, "invalid_value"),
        (ask("production", n=2), 400, "invalid_value"),
        (ask("production", backend="http://elsewhere"), 400, "invalid_value"),
        (ask("production", temperature=-1), 400, "invalid_value"),
        (ask("production", stop=["x"] * 5), 400, "invalid_value"),
        (ask("production", stream_options={"include_usage": True}), 400, "invalid_value"),
        ({"model": "production"}, 400, "invalid_value"),
        (ask("production", prompt="x" * 4000), 413, "body_too_large"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_the_known_shape(folder, body, status, code):
    async def run():
        async with opened(folder, settings(limits={"body_bytes": 2000})) as (gateway, client):
            answer = await client.post("/completions", json=body)
            gateway.recorder.flush()
            return answer, gateway.traffic.counts()

    answer, counts = asyncio.run(run())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert counts == {}


def test_conversations_need_a_template_and_have_no_pictures(folder):
    picture = [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]
    two = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]

    async def run():
        async with opened(folder, settings(limits={"messages": 2})) as (_, client):
            for messages in ([{"role": "user", "content": picture}], two, two + two, []):
                answer = await client.post("/chat/completions", json={"model": "v0", "messages": messages})
                yield answer.json()["error"]["code"]

    async def collect():
        return [code async for code in run()]

    assert asyncio.run(collect()) == ["invalid_value", "no_chat_template", "too_many_messages", "invalid_value"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer nobody"}, 401),
        ({"authorization": "Basic good"}, 401),
        ({"authorization": "Bearer reader"}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
def test_every_path_needs_a_token_for_asking(folder, headers, status):
    paths = [("POST", "/completions"), ("POST", "/chat/completions"), ("POST", "/feedback"), ("GET", "/models")]

    async def run():
        async with opened(folder) as (_, client):
            asked = [*paths, ("GET", "/models/v0"), ("GET", "/openapi.json"), ("GET", "/nothing")]
            return [(await client.request(*each, headers=headers)).status_code for each in asked]

    assert set(asyncio.run(run())) == {status}


def test_too_many_at_once_are_sent_away_with_when_to_return(folder):
    async def run():
        async with opened(folder, settings(limits={"waiting": 1})) as (gateway, client):
            wait = threading.Event()
            gateway.embedded._worker.submit(wait.wait)
            waiting = [asyncio.create_task(client.post("/completions", json=ask("v0"))) for _ in range(2)]
            while gateway.embedded.shelf.loaded != [gateway.shop.version("v0").id]:
                await asyncio.sleep(0.01)
            refused = await client.post("/completions", json=ask("v0", stream=True))
            wait.set()
            return refused, [answer.status_code for answer in await asyncio.gather(*waiting)]

    refused, others = asyncio.run(run())
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert others == [200, 200]


@pytest.fixture
def slow(monkeypatch):
    """Every token takes 10 ms; a list that grows with them."""
    from perdure.models.sampling import most_probable

    written = []

    def choose(logits_BV):
        written.append(1)
        time.sleep(0.01)
        return most_probable(logits_BV)

    monkeypatch.setattr("perdure.web.gateway.writing.most_probable", choose)
    return written


@pytest.mark.parametrize("stream", [True, False])
def test_work_ends_when_the_client_goes_away(folder, slow, stream):
    gateway = Gateway(folder)
    with served(create_gateway_app(gateway, FakeKeys())) as address:
        headers = {"authorization": "Bearer good"}
        with httpx.Client(base_url=f"{address}/v1", headers=headers, timeout=0.4) as client:
            body = ask("v0", max_tokens=400, stream=stream)
            if stream:
                with client.stream("POST", "/completions", json=body) as answer:
                    next(answer.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/completions", json=body)
        deadline = time.monotonic() + 3
        while gateway.traffic.counts() == {} and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [kind for _, kind in gateway.traffic.counts()] == ["gone"]
        so_far = len(slow)
        time.sleep(0.05)
        assert len(slow) <= so_far + 1 < 200


def test_an_answer_that_takes_too_long_is_broken_off(folder, slow):
    async def run():
        async with opened(folder, settings(limits={"seconds": 0.5})) as (_, client):
            await client.post("/completions", json=ask("v0", max_tokens=1))  # loaded
            whole = await client.post("/completions", json=ask("v0", max_tokens=400))
            return whole, await client.post("/completions", json=ask("v0", max_tokens=400, stream=True))

    whole, stream = asyncio.run(run())
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
    found, done = events(stream.text)
    assert (stream.status_code, found[-1]["error"]["code"], done) == (200, "timeout", False)


def test_nothing_but_counts_and_times_is_kept_by_default(folder):
    async def run(found):
        async with opened(folder, found) as (gateway, client):
            answer = (await client.post("/completions", json=ask("production", user="alice@example"))).json()
            gateway.recorder.flush()
        return answer

    def kept():
        return b"".join(path.read_bytes() for path in folder.glob("traffic.sqlite*"))

    answer = asyncio.run(run(settings()))
    assert answer["id"].encode() in kept()
    assert PROMPT.encode() not in kept()
    assert b"alice" not in kept()
    answer = asyncio.run(run(settings(record={"texts": True})))
    assert PROMPT.encode() in kept()
    assert answer["choices"][0]["text"].encode() in kept()
    assert b"alice" not in kept()


def test_feedback_counts_once_for_an_answer_that_there_was(folder):
    async def run():
        async with opened(folder) as (_, client):
            answer = (await client.post("/completions", json=ask("production"))).json()
            for identifier, score in ((answer["id"], 0.2), (answer["id"], 1.0), ("cmpl-none", 1), (answer["id"], 2)):
                yield (await client.post("/feedback", json={"id": identifier, "score": score})).status_code

    async def collect():
        return [status async for status in run()]

    assert asyncio.run(collect()) == [200, 409, 404, 400]


def test_the_server_lets_tokens_of_its_accounts_ask(folder):
    from argon2 import PasswordHasher

    from perdure.web.server import Services
    from perdure.web.server.running import with_gateway

    services = Services.over(Workspace.open(folder), hasher=PasswordHasher(1, 8, 1))
    services.accounts.set_up(services.accounts.setup_code(), "mori", "a long enough password")
    asking, token = services.tokens.make("mori", "shop", ["generate"], 1)
    reading, _ = services.tokens.make("mori", "shop", ["read"], 1)
    statuses = []
    with served(with_gateway(services, "cpu")) as address:
        headers = {"host": "localhost:8321"}
        for secret in (asking, reading, "nothing"):
            bearer = headers | {"authorization": f"Bearer {secret}"}
            statuses.append(httpx.post(f"{address}/v1/completions", json=ask("v0"), headers=bearer).status_code)
        services.tokens.revoke("mori", token.id)
        bearer = headers | {"authorization": f"Bearer {asking}"}
        statuses.append(httpx.get(f"{address}/v1/models", headers=bearer).status_code)
        statuses.append(httpx.get(f"{address}/sign-in", headers=headers).status_code)
        statuses.append(httpx.get(f"{address}/v1/models", headers=bearer | {"host": "evil"}).status_code)
    assert statuses == [200, 403, 401, 401, 200, 421]
