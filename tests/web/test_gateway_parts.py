"""The parts of the gateway: what of a growing text is sent, which models stay in memory, how many may wait."""

import asyncio
import shutil
import sqlite3
import threading

import httpx
import pytest
from gateway_shop import GOOD, FakeKeys, build, opened, served, settings

from perdure.web.gateway import Gateway, beside, create_gateway_app
from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.recorder import Recorder
from perdure.web.gateway.room import Room
from perdure.web.gateway.routing import Routing
from perdure.web.gateway.settings import Models
from perdure.web.gateway.shelf import Shelf
from perdure.web.gateway.traffic import Outcome, Traffic
from perdure.web.gateway.unfolding import Unfolding
from perdure.workspace import Workspace
from perdure.workspace.watching import Watch
from pool_tasks import CAPITALS, FIRST, QUICK


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("parts") / "shop")


@pytest.fixture
def shop(made, tmp_path):
    return Workspace.open(shutil.copytree(made, tmp_path / "shop"))


# What is sent


@pytest.mark.parametrize(
    ("texts", "stops", "sent"),
    [
        (["a", "ab", "abc"], (), ["a", "b", "c"]),
        (["a", "a\ufffd", "aé", "aé!"], (), ["a", "", "é", "!"]),
        (["a", "a<", "a<b", "a<b>"], ("<e>",), ["a", "", "<b", ">"]),
        (["a", "a<", "a<e", "a<e>b"], ("<e>",), ["a", "", "", ""]),
        (["one", "one\n", "one\n\n"], ("\n\n", "x"), ["one", "", ""]),
    ],
)
def test_only_what_stays_is_sent(texts, stops, sent):
    unfolding = Unfolding(stops)
    assert [unfolding.more(text) for text in texts] == sent


def test_the_rest_is_what_was_held_back():
    unfolding = Unfolding(("<end>",))
    assert [unfolding.more("a<en"), unfolding.rest("a<en\ufffd"), unfolding.stopped] == ["a", "<en\ufffd", False]
    assert (Unfolding(("b",)).rest("abc"), Unfolding(("c", "b")).rest("abc")) == ("a", "a")


# Models in memory


def shelf_of(shop, **limits):
    return Shelf(shop.archive, Models(**limits))


def names(shop, shelf):
    return [shop.version(key).name for key in shelf.loaded]


def test_the_model_that_was_not_used_for_longest_goes(shop):
    async def run():
        shelf = shelf_of(shop, loaded=2)
        for ref in ("v0", "v1", "v0", "v2"):
            shelf.put_back(await shelf.take(shop.version(ref)))
        return names(shop, shelf)

    assert asyncio.run(run()) == ["v0", "v2"]


def test_a_model_in_use_stays_and_others_wait_their_turn(shop):
    async def run():
        shelf = shelf_of(shop, loaded=1)
        first = await shelf.take(shop.version("v0"))
        other = asyncio.create_task(shelf.take(shop.version("v1")))
        await asyncio.sleep(0.1)
        again = asyncio.create_task(shelf.take(shop.version("v0")))  # must not overtake who waits
        await asyncio.sleep(0.1)
        before = (names(shop, shelf), other.done(), again.done())
        shelf.put_back(first)
        shelf.put_back(await other)
        await again
        return before, names(shop, shelf)

    before, after = asyncio.run(run())
    assert before == (["v0"], False, False)
    assert after == ["v0"]


def test_many_who_want_one_model_load_it_once(shop, monkeypatch):
    loads = []
    real = Workspace.load
    monkeypatch.setattr(
        Workspace, "load", lambda *given, **more: (loads.append(given[1].name), real(*given, **more))[1]
    )

    async def run():
        shelf = shelf_of(shop)
        await asyncio.gather(*(shelf.take(shop.version("v1")) for _ in range(5)))

    asyncio.run(run())
    assert loads == ["v1"]


def test_memory_is_bounded_and_a_model_over_it_refused(shop):
    size = shop.version("v0").manifest.nbytes / 2**30

    async def run():
        shelf = shelf_of(shop, loaded=9, memory_gib=2.5 * size)
        for ref in ("v0", "v1", "v2"):
            shelf.put_back(await shelf.take(shop.version(ref)))
        with pytest.raises(AnswerError, match="backend"):
            await shelf_of(shop, memory_gib=0.5 * size).take(shop.version("v0"))
        return names(shop, shelf)

    assert asyncio.run(run()) == ["v1", "v2"]


def test_a_failed_load_is_told_and_tried_again(shop, monkeypatch):
    async def run():
        shelf = shelf_of(shop, loaded=1)
        with monkeypatch.context() as broken:
            broken.setattr(Workspace, "load", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await shelf.take(shop.version("v1"))
        assert shelf.loaded == []
        await shelf.take(shop.version("v1"))
        return names(shop, shelf)

    assert asyncio.run(run()) == ["v1"]


def test_a_pool_version_answers_each_request_by_its_group_with_one_model(shop, monkeypatch):
    (pooled,) = shop.tune_in_pool([FIRST], QUICK | {"max_steps": 1}, on="v0", actor="kato")
    routes, real = [], Workspace.answering

    def answering(shop, version, text):
        routes.append(text)
        return real(shop, version, text)

    monkeypatch.setattr(Workspace, "answering", answering)
    request = f"{CAPITALS}\n\nriver:"

    async def run():
        async with opened(shop.folder, settings(serving={"unapproved": True})) as (gateway, client):
            for ref in (pooled.name, "v0", pooled.name):
                body = {"model": ref, "messages": [{"role": "user", "content": request}], "max_tokens": 6}
                yield (await client.post("/chat/completions", json=body)).json()["choices"][0]["message"]["content"]
            yield gateway.embedded.shelf.loaded

    async def collect():
        return [found async for found in run()]

    first, plain, again, loaded = asyncio.run(collect())
    assert first == again != plain
    assert (routes, loaded) == ([request] * 3, [shop.version("v0").id])


# Waiting


def test_who_is_sent_away_is_told_for_how_long():
    times = iter([0.0, 0.0, 40.0, 40.0])
    room = Room(1, clock=lambda: next(times))
    with room.entered(), pytest.raises(AnswerError) as sent, room.entered():
        pass
    assert sent.value.headers() == {"retry-after": "1"}
    assert room.under_way == 0
    room = Room(2, clock=iter([0.0, 10.0]).__next__)
    with room.entered():
        pass
    room.under_way = 2
    with pytest.raises(AnswerError) as sent, room.entered():
        pass
    assert sent.value.retry_after == pytest.approx(2 * (1 + 0.2 * 9))


# What is noticed and what is kept


def test_a_watch_notices_every_writer(shop):
    watch = Watch(shop.folder)
    assert [watch.moved(), watch.moved()] == [True, False]
    shop.promote("v1", "staging", actor="sato")
    assert [watch.moved(), watch.moved()] == [True, False]
    writer = threading.Thread(target=lambda: Workspace.open(shop.folder).promote("v2", "staging", actor="sato"))
    writer.start()
    writer.join()
    assert [watch.moved(), watch.moved()] == [True, False]
    watch.close()


def test_names_are_read_again_only_after_a_change(shop, monkeypatch):
    reads = []
    real = type(shop.archive).aliases
    monkeypatch.setattr(type(shop.archive), "aliases", lambda archive: (reads.append(1), real(archive))[1])
    routing = Routing(shop.archive, unapproved=False, draw=lambda: 0.0)
    for _ in range(5):
        routing.choose("production")
    shop.promote("v1", "production", actor="sato")
    assert [routing.choose("production").version.name for _ in range(5)] == ["v1"] * 5
    assert len(reads) == 2


def outcome(number, **more):
    given = {"id": f"cmpl-{number}", "time": 1.0, "alias": None, "version": "a" * 64, "canary": None}
    return Outcome(**given | {"kind": "answered", "seconds": 1.0} | more)


def test_what_was_kept_is_never_changed(tmp_path):
    traffic = Traffic(tmp_path)
    traffic.add([outcome(1, texts=("asked\ud800", "said"))])
    traffic.score("cmpl-1", 0.5, 2.0)
    connection = sqlite3.connect(tmp_path / "traffic.sqlite")
    connection.execute("PRAGMA recursive_triggers = ON")
    for table in ("answers", "scores", "texts"):
        for change in (f"UPDATE {table} SET sequence = 9", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                connection.execute(change)
    connection.close()
    assert oct((tmp_path / "traffic.sqlite").stat().st_mode)[-3:] == "600"
    traffic.close()


def test_a_recorder_outlives_what_goes_wrong(tmp_path):
    traffic = Traffic(tmp_path)
    looks = []
    recorder = Recorder(traffic, lambda: looks.append(1) or 1 / 0, pause_s=0.05)
    recorder.put(outcome(1))
    recorder.flush()
    recorder.put(outcome(1))  # the same id: refused by the database
    recorder.flush()
    recorder.put(outcome(2, kind="failed"))
    with pytest.raises(AnswerError, match="no answer"):
        recorder.score("cmpl-9", 1.0, 1.0).result()
    recorder.close()
    recorder.close()
    assert traffic.counts() == {("a" * 64, "answered"): 1, ("a" * 64, "failed"): 1}
    assert len(looks) >= 3
    traffic.close()


def test_canaries_are_looked_after_without_requests_and_beside_pages(shop):
    """The pages' application and the gateway's live and end together; each has its own paths."""
    seen = []

    async def pages(scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                seen.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"pages"})

    (shop.folder / "gateway.toml").write_text("[canary]\nlook_seconds = 0.05\n")
    looked = threading.Event()
    gateway = Gateway(shop.folder)
    gateway.recorder._after = looked.set
    with served(beside(pages, create_gateway_app(gateway, FakeKeys()))) as address:
        assert looked.wait(5)
        assert httpx.get(f"{address}/anything").text == "pages"
        assert httpx.get(f"{address}/v1x").text == "pages"
        assert httpx.get(f"{address}/v1/models").status_code == 401
        assert httpx.get(f"{address}/v1/models", headers=GOOD).json()["object"] == "list"
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert not gateway.recorder._thread.is_alive()


def test_what_was_kept_can_be_opened_while_somebody_writes(tmp_path):
    Traffic(tmp_path).close()
    writer = sqlite3.connect(tmp_path / "traffic.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    traffic = Traffic(tmp_path)
    assert traffic.counts() == {}
    traffic.close()
    writer.close()
