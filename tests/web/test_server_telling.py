"""Notices while a server runs: in a thread of their own, whatever goes wrong with one of them."""

import logging
import threading

from perdure.errors import SettingError
from perdure.integrations.delivering import Sent
from perdure.web.server.telling import telling


def test_it_goes_on_after_every_failure_and_ends_with_the_server(monkeypatch, caplog):
    answers = [SettingError("no TOML"), RuntimeError("odd"), [Sent("chat", waiting="chat answered 503")], []]
    asked, enough = [], threading.Event()

    def send(shop, sleep):
        sleep(0)
        asked.append((shop, threading.current_thread().name))
        if len(asked) > len(answers):
            enough.set()
            return []
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("perdure.web.server.telling.send", send)
    with caplog.at_level(logging.WARNING, "perdure.server"), telling("shop", look_s=0.01):
        assert enough.wait(10)
    assert set(asked) == {("shop", "notices")}
    assert not any(thread.name == "notices" for thread in threading.enumerate())
    told = [record.getMessage() for record in caplog.records]
    assert "notices wait: no TOML" in told and "notices wait: chat answered 503" in told
